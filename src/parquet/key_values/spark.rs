//! Spark's row schema as JSON: `StructType.json`. Spark trusts it over the Parquet schema.

use arrow_schema::{DataType, Field, TimeUnit};
use serde_json::{Value, json};

use super::json::{follow, object};
use super::{File, Outcome, Wanted};

/// Fields follow the columns. One whose type Spark cannot read is left out: the others stay readable.
pub(super) fn edit(_file: &File, text: &str, wanted: &[Wanted], notes: &mut Vec<String>) -> Outcome {
    let mut schema = object(text)?;
    let Some(Value::Array(fields)) = schema.get("fields") else { return Err("it lists no fields".into()) };
    let fields = follow(fields, wanted, |column| {
        let field = column.field.and_then(|field| described(field, column.name));
        if field.is_none() {
            notes.push(format!("Spark has no type for the new column `{}` and will not see it", column.name));
        }
        Ok(field)
    })?;
    schema.insert("fields".into(), Value::Array(fields));
    Ok(Value::Object(schema).to_string())
}

fn described(field: &Field, name: &str) -> Option<Value> {
    let kind = type_of(field.data_type())?;
    Some(json!({"name": name, "type": kind, "nullable": field.is_nullable(), "metadata": {}}))
}

/// The type that Spark reads from what Arrow's `kind` becomes in Parquet.
fn type_of(kind: &DataType) -> Option<Value> {
    Some(match kind {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "byte".into(),
        DataType::Int16 | DataType::UInt8 => "short".into(),
        DataType::Int32 | DataType::UInt16 => "integer".into(),
        DataType::Int64 | DataType::UInt32 => "long".into(),
        DataType::UInt64 => "decimal(20,0)".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".into()
        }
        DataType::Date32 => "date".into(),
        DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond, zone) => {
            if zone.is_some() {
                "timestamp".into()
            } else {
                "timestamp_ntz".into()
            }
        }
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *precision <= 38 && *scale >= 0 =>
        {
            format!("decimal({precision},{scale})").into()
        }
        DataType::Dictionary(_, values) => type_of(values)?,
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            json!({"type": "array", "elementType": type_of(element.data_type())?, "containsNull": element.is_nullable()})
        }
        DataType::Struct(fields) => {
            let fields: Option<Vec<Value>> = fields.iter().map(|field| described(field, field.name())).collect();
            json!({"type": "struct", "fields": fields?})
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else { return None };
            let [key, value] = &pair[..] else { return None };
            json!({
                "type": "map", "keyType": type_of(key.data_type())?, "valueType": type_of(value.data_type())?,
                "valueContainsNull": value.is_nullable()
            })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_that_spark_infers() {
        let element = Field::new("element", DataType::Int32, true);
        let nested = DataType::Struct(vec![Field::new("a", DataType::List(element.into()), false)].into());
        let expected = r#"{"type":"struct","fields":[{"name":"a","type":{"type":"array","elementType":"integer","containsNull":true},"nullable":false,"metadata":{}}]}"#;
        assert_eq!(type_of(&nested).unwrap().to_string(), expected);
        assert_eq!(type_of(&DataType::Decimal128(12, 3)).unwrap(), "decimal(12,3)");
        assert_eq!(type_of(&DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap(), "timestamp_ntz");
        assert_eq!(type_of(&DataType::Timestamp(TimeUnit::Nanosecond, None)), None);
    }
}

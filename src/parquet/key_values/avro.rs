//! `parquet.avro.schema`: the Avro record that parquet-avro wrote, and reads again.

use arrow_schema::{DataType, Field, TimeUnit};
use serde_json::{Value, json};

use super::json::{follow, object};
use super::{Outcome, Wanted};

/// Fields follow the columns. Where Avro has no word for a new name or type, parquet-avro does better without this key: it
/// then derives its schema from the file's.
pub(super) fn edit(text: &str, wanted: &[Wanted]) -> Outcome {
    let mut record = object(text)?;
    let Some(Value::Array(fields)) = record.get("fields") else { return Err("it lists no fields".into()) };
    if let Some(column) = wanted.iter().find(|column| !is_name(column.name)) {
        return Err(format!("`{}` is not a name in Avro", column.name));
    }
    let fields = follow(fields, wanted, |column| {
        let kind = column.field.and_then(|field| typed(field, column.name));
        let kind = kind.ok_or_else(|| format!("the new column `{}` has no type in Avro", column.name))?;
        let mut field = json!({"name": column.name, "type": kind});
        if column.field.is_some_and(Field::is_nullable) {
            field["default"] = Value::Null;
        }
        Ok(Some(field))
    })?;
    record.insert("fields".into(), Value::Array(fields));
    Ok(Value::Object(record).to_string())
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// The type of a field; `path` makes names of records unique.
fn typed(field: &Field, path: &str) -> Option<Value> {
    let kind = type_of(field.data_type(), path)?;
    Some(if field.is_nullable() { json!(["null", kind]) } else { kind })
}

fn type_of(kind: &DataType, path: &str) -> Option<Value> {
    let logical = |base: &str, name: &str| json!({"type": base, "logicalType": name});
    Some(match kind {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => "int".into(),
        DataType::Int64 => "long".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".into(),
        DataType::Date32 => logical("int", "date"),
        DataType::Time32(TimeUnit::Millisecond) => logical("int", "time-millis"),
        DataType::Time64(TimeUnit::Microsecond) => logical("long", "time-micros"),
        DataType::Timestamp(unit, zone) => {
            let local = if zone.is_some() { "" } else { "local-" };
            match unit {
                TimeUnit::Millisecond => logical("long", &format!("{local}timestamp-millis")),
                TimeUnit::Microsecond => logical("long", &format!("{local}timestamp-micros")),
                _ => return None,
            }
        }
        DataType::Dictionary(_, values) => type_of(values, path)?,
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            json!({"type": "array", "items": typed(element, &format!("{path}_element"))?})
        }
        DataType::Struct(fields) => {
            let fields: Option<Vec<Value>> = fields
                .iter()
                .map(|field| {
                    let kind = typed(field, &format!("{path}_{}", field.name()))?;
                    is_name(field.name()).then(|| json!({"name": field.name(), "type": kind}))
                })
                .collect();
            json!({"type": "record", "name": path, "fields": fields?})
        }
        _ => return None,
    })
}

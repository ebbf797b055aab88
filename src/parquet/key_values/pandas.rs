//! `pandas`: which columns are the index, and the types that a data frame had.

use arrow_schema::{DataType, TimeUnit};
use serde_json::{Value, json};

use super::json::object;
use super::{Outcome, Wanted};

/// Entries follow the columns by `field_name`; index columns that go leave the index.
pub(super) fn edit(text: &str, wanted: &[Wanted]) -> Outcome {
    let mut pandas = object(text)?;
    let renamed = |old: &str| wanted.iter().find(|column| column.old == Some(old)).map(|column| column.name);
    if let Some(Value::Array(index)) = pandas.get_mut("index_columns") {
        // A range is an object, and has no column.
        index.retain_mut(|entry| {
            let Value::String(name) = entry else { return true };
            renamed(name).map(|new| name.replace_range(.., new)).is_some()
        });
    }
    let Some(Value::Array(columns)) = pandas.get_mut("columns") else { return Err("it lists no columns".into()) };
    columns.retain_mut(|entry| {
        let field_name = entry.get("field_name").and_then(Value::as_str);
        let Some(old) = field_name.or_else(|| entry.get("name").and_then(Value::as_str)).map(str::to_owned) else {
            return true;
        };
        let Some(column) = wanted.iter().find(|column| column.old == Some(old.as_str())) else { return false };
        // An index without a name is called `null`, and its column `__index_level_0__`.
        for key in ["name", "field_name"] {
            if entry.get(key).is_some_and(|value| value == old.as_str()) {
                entry[key] = column.name.into();
            }
        }
        if let Some(field) = column.field {
            let (pandas_type, numpy_type) = types_of(field.data_type());
            entry["pandas_type"] = pandas_type.into();
            entry["numpy_type"] = numpy_type.into();
            entry["metadata"] = metadata_of(field.data_type());
        }
        true
    });
    columns.extend(wanted.iter().filter(|column| column.old.is_none()).filter_map(|column| {
        let kind = column.field?.data_type();
        let (pandas_type, numpy_type) = types_of(kind);
        Some(json!({
            "name": column.name, "field_name": column.name, "pandas_type": pandas_type, "numpy_type": numpy_type,
            "metadata": metadata_of(kind)
        }))
    }));
    Ok(Value::Object(pandas).to_string())
}

fn metadata_of(kind: &DataType) -> Value {
    match kind {
        DataType::Timestamp(_, Some(zone)) => json!({"timezone": zone.as_ref()}),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => json!({"precision": precision, "scale": scale}),
        _ => Value::Null,
    }
}

/// `pandas_type` and `numpy_type`, as pyarrow writes them.
fn types_of(kind: &DataType) -> (String, String) {
    let number = |name: &str| (name.to_owned(), name.to_owned());
    let object = |name: &str| (name.to_owned(), "object".to_owned());
    match kind {
        DataType::Boolean => number("bool"),
        DataType::Int8 => number("int8"),
        DataType::Int16 => number("int16"),
        DataType::Int32 => number("int32"),
        DataType::Int64 => number("int64"),
        DataType::UInt8 => number("uint8"),
        DataType::UInt16 => number("uint16"),
        DataType::UInt32 => number("uint32"),
        DataType::UInt64 => number("uint64"),
        DataType::Float16 => number("float16"),
        DataType::Float32 => number("float32"),
        DataType::Float64 => number("float64"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => object("unicode"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            object("bytes")
        }
        DataType::Date32 | DataType::Date64 => object("date"),
        DataType::Time32(_) | DataType::Time64(_) => object("time"),
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second => "s",
                TimeUnit::Millisecond => "ms",
                TimeUnit::Microsecond => "us",
                TimeUnit::Nanosecond => "ns",
            };
            (if zone.is_some() { "datetimetz" } else { "datetime" }.to_owned(), format!("datetime64[{unit}]"))
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            object("decimal")
        }
        DataType::Dictionary(_, values) => types_of(values),
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            object(&format!("list[{}]", types_of(element.data_type()).0))
        }
        _ => object("object"),
    }
}

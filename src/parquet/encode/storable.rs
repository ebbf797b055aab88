//! Which Arrow types Parquet can hold, and under which names.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, IntervalUnit, TimeUnit};

use crate::error::{Context, Error, Result};

/// `field` as it is written: the inner fields of lists and maps get the names of the Parquet specification.
///
/// # Errors
/// `Invalid`, naming the type, when Parquet has no type that means the same: a reader without Arrow's own schema
/// would see plain numbers.
pub(super) fn field(field: &Field) -> Result<Field> {
    Ok(field.clone().with_data_type(data_type(field.data_type())?))
}

fn data_type(wanted: &DataType) -> Result<DataType> {
    let refused =
        |repair: &str| Err(Error::invalid(format!("Parquet cannot hold the type `{wanted}`")).hint(repair.to_owned()));
    Ok(match wanted {
        DataType::Timestamp(TimeUnit::Second, _) | DataType::Time32(TimeUnit::Second) => {
            return refused("cast it to milliseconds");
        }
        DataType::Date64 => return refused("cast it to `date32`, or to a timestamp in milliseconds"),
        DataType::Duration(_) => return refused("cast it to an integer, and say the unit in the name"),
        DataType::Interval(IntervalUnit::MonthDayNano) => return refused("cast it to a number of a unit"),
        DataType::Union(..) => return refused("make a struct of its members"),
        DataType::Struct(fields) if fields.is_empty() => return refused("leave it out, or give it a field"),
        DataType::RunEndEncoded(..) => return refused("decode the runs"),
        DataType::List(inner) => DataType::List(element(inner)?),
        DataType::LargeList(inner) => DataType::LargeList(element(inner)?),
        DataType::ListView(inner) => DataType::ListView(element(inner)?),
        DataType::LargeListView(inner) => DataType::LargeListView(element(inner)?),
        DataType::FixedSizeList(inner, length) => DataType::FixedSizeList(element(inner)?, *length),
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .map(|inner| field(inner).context(|| format!("field `{}`", inner.name())))
                .collect::<Result<Fields>>()?,
        ),
        DataType::Map(entries, sorted) => {
            let DataType::Struct(pair) = entries.data_type() else {
                return refused("give its entries a key and a value");
            };
            let [key, value] = pair.as_ref() else { return refused("give its entries a key and a value") };
            let pair = vec![named(key, "key")?, named(value, "value")?];
            let entries = entries.as_ref().clone().with_name("key_value").with_data_type(DataType::Struct(pair.into()));
            DataType::Map(Arc::new(entries), *sorted)
        }
        DataType::Dictionary(_, values) => {
            if data_type(values)?.is_nested() {
                return refused("decode the dictionary");
            }
            wanted.clone()
        }
        other => other.clone(),
    })
}

fn element(inner: &Field) -> Result<Arc<Field>> {
    named(inner, "element")
}

fn named(inner: &Field, name: &str) -> Result<Arc<Field>> {
    Ok(Arc::new(field(inner)?.with_name(name)))
}

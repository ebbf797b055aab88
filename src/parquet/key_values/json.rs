//! Edits that JSON schemas have in common, and the small one of `GeoParquet`.

use serde_json::{Map, Value};

use super::{Outcome, Wanted};

/// A JSON object.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it is not a JSON object".into()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

/// The objects of `list` that name the kept columns, under their new names, and what `new` makes of the others.
/// A kept column that the list does not name is left out, as it was.
pub(super) fn follow(
    list: &[Value],
    wanted: &[Wanted],
    mut new: impl FnMut(&Wanted) -> Result<Option<Value>, String>,
) -> Result<Vec<Value>, String> {
    let mut result = Vec::with_capacity(wanted.len());
    for column in wanted {
        if column.field.is_some() {
            result.extend(new(column)?);
        } else if let Some(old) = column.old
            && let Some(Value::Object(found)) =
                list.iter().find(|entry| entry.get("name").is_some_and(|name| name == old))
        {
            let mut entry = found.clone();
            entry.insert("name".into(), column.name.into());
            result.push(Value::Object(entry));
        }
    }
    Ok(result)
}

/// Geometry columns that are kept follow their names; those that go or are computed anew lose their entry.
pub(super) fn edit_geo(text: &str, wanted: &[Wanted]) -> Outcome {
    let mut geo = object(text)?;
    let kept = |old: &str| wanted.iter().find(|column| column.field.is_none() && column.old == Some(old));
    let Some(Value::Object(columns)) = geo.get("columns") else { return Err("it lists no columns".into()) };
    let columns: Map<String, Value> =
        columns.iter().filter_map(|(name, entry)| Some((kept(name)?.name.to_owned(), entry.clone()))).collect();
    let primary = geo.get("primary_column").and_then(Value::as_str).and_then(kept);
    let Some(primary) = primary.filter(|primary| columns.contains_key(primary.name)) else {
        return Err("its primary geometry column is gone".into());
    };
    geo.insert("primary_column".into(), primary.name.into());
    geo.insert("columns".into(), Value::Object(columns));
    Ok(Value::Object(geo).to_string())
}

//! Key-values of files whose columns change.

use arrow_schema::TimeUnit;
use bytes::Bytes;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Value as Json, json};

use super::*;
use crate::parquet::{Add, Parsed, samples};

/// A file of the columns c0 (`int64`), c1 (`double`), c2 (text) with the key-values given; Arrow's is its own.
fn file(key_values: &[(&str, Option<&str>)]) -> File {
    let key_values = key_values.iter().map(|(key, value)| KeyValue::new((*key).into(), value.map(str::to_owned)));
    let properties = WriterProperties::builder().set_key_value_metadata(Some(key_values.collect())).build();
    let bytes: Bytes = samples::file(&[samples::batch(&[0, 1, 2], 10, 1)], properties);
    match File::parse("a.parquet", bytes.len() as u64, &bytes).unwrap() {
        Parsed::File(file) => file,
        Parsed::Needs(more) => panic!("{more}"),
    }
}

/// c0 goes, c1 is recast to a timestamp, c2 becomes `text`, `x` comes.
fn change(x: DataType) -> Change {
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Change {
        drops: vec!["c0".into()],
        renames: vec![("c2".into(), "text".into())],
        adds: vec![
            Add { field: Field::new("c1", stamp, true), replaces: Some("c1".into()) },
            Add { field: Field::new("x", x, true), replaces: None },
        ],
        key_values: Vec::new(),
    }
}

fn edited(file: &File, change: &Change) -> Edited {
    edit(file, &change.targets(file).unwrap(), change)
}

fn value<'a>(edited: &'a Edited, key: &str) -> Option<&'a str> {
    let entries = edited.entries.as_deref().unwrap_or_default();
    entries.iter().find(|entry| entry.text(key_value::KEY) == Some(key)).and_then(|entry| entry.text(key_value::VALUE))
}

fn json(edited: &Edited, key: &str) -> Json {
    serde_json::from_str(value(edited, key).unwrap()).unwrap()
}

#[test]
fn spark_sees_what_the_file_holds() {
    let row = r#"{"type":"struct","fields":[{"name":"c0","type":"long","nullable":true,"metadata":{}},
        {"name":"c1","type":"double","nullable":true,"metadata":{}},
        {"name":"c2","type":"string","nullable":true,"metadata":{"comment":"kept"}}]}"#;
    let file = file(&[(SPARK_ROW, Some(row)), ("org.apache.spark.version", Some("4.3.0"))]);
    let result = edited(&file, &change(DataType::Float64));
    let expected = json!({"type": "struct", "fields": [
        {"name": "c1", "type": "timestamp", "nullable": true, "metadata": {}},
        {"name": "text", "type": "string", "nullable": true, "metadata": {"comment": "kept"}},
        {"name": "x", "type": "double", "nullable": true, "metadata": {}}
    ]});
    assert_eq!(json(&result, SPARK_ROW), expected);
    assert_eq!(value(&result, "org.apache.spark.version"), Some("4.3.0"));
    assert!(result.notes.is_empty());
    // A type that Spark cannot read stays out of its sight, and the other columns readable.
    let result = edited(&file, &change(DataType::Time64(TimeUnit::Microsecond)));
    assert_eq!(json(&result, SPARK_ROW)["fields"].as_array().unwrap().len(), 2);
    assert_eq!(result.notes, ["Spark has no type for the new column `x` and will not see it"]);
}

#[test]
fn pandas_keeps_its_index() {
    let entry = |name: &str| json!({"name": name, "field_name": name, "pandas_type": "int64", "numpy_type": "int64", "metadata": null});
    let range = json!({"kind": "range", "start": 0, "stop": 10, "step": 1, "name": null});
    let mut unnamed = entry("c0");
    unnamed["name"] = Json::Null;
    let pandas = json!({
        "index_columns": ["c0", "c2", range], "columns": [unnamed, entry("c1"), entry("c2")], "pandas_version": "3.1.1"
    });
    let file = file(&[("pandas", Some(&pandas.to_string()))]);
    let result = json(&edited(&file, &change(DataType::Utf8)), "pandas");
    assert_eq!(result["index_columns"], json!(["text", range]));
    let columns = result["columns"].as_array().unwrap();
    let told: Vec<_> = columns.iter().map(|column| (&column["field_name"], &column["pandas_type"])).collect();
    let (stamp, number, text) = (json!("datetimetz"), json!("int64"), json!("unicode"));
    assert_eq!(told, [(&json!("c1"), &stamp), (&json!("text"), &number), (&json!("x"), &text)]);
    assert_eq!(columns[0]["metadata"], json!({"timezone": "UTC"}));
    // Only a rename: an index without a name keeps having none.
    let rename = Change { renames: vec![("c0".into(), "id".into())], ..Change::default() };
    let result = json(&edited(&file, &rename), "pandas");
    assert_eq!((&result["columns"][0]["name"], &result["columns"][0]["field_name"]), (&Json::Null, &json!("id")));
    assert_eq!(result["index_columns"][0], "id");
}

#[test]
fn avro_follows_or_goes() {
    let field = |name: &str, kind: Json| json!({"name": name, "type": kind, "doc": "kept"});
    let avro = json!({"type": "record", "name": "Row", "namespace": "org.example", "fields": [
        field("c0", json!("long")), field("c1", json!(["null", "double"])), field("c2", json!("string"))
    ]});
    let key = "parquet.avro.schema";
    let file = file(&[(key, Some(&avro.to_string()))]);
    let result = json(&edited(&file, &change(DataType::Float64)), key);
    let stamp = json!(["null", {"type": "long", "logicalType": "timestamp-micros"}]);
    let expected = json!([
        {"name": "c1", "type": stamp, "default": null}, field("text", json!("string")),
        {"name": "x", "type": ["null", "double"], "default": null}
    ]);
    assert_eq!(result["fields"], expected);
    assert_eq!(result["namespace"], "org.example");
    let result = edited(&file, &change(DataType::Decimal128(20, 2)));
    assert_eq!(value(&result, key), None);
    assert_eq!(result.notes, ["key `parquet.avro.schema` is taken out: the new column `x` has no type in Avro"]);
    let rename = Change { renames: vec![("c0".into(), "the id".into())], ..Change::default() };
    assert_eq!(
        edited(&file, &rename).notes,
        ["key `parquet.avro.schema` is taken out: `the id` is not a name in Avro"]
    );
}

#[test]
fn geometry_follows_or_goes() {
    let geo = json!({"version": "1.1.0", "primary_column": "c2", "columns": {"c2": {"encoding": "WKB"}, "c0": {}}});
    let file = file(&[("geo", Some(&geo.to_string()))]);
    let result = json(&edited(&file, &change(DataType::Utf8)), "geo");
    assert_eq!(result["primary_column"], "text");
    assert_eq!(result["columns"], json!({"text": {"encoding": "WKB"}}));
    let drop = Change { drops: vec!["c2".into()], ..Change::default() };
    assert_eq!(edited(&file, &drop).notes, ["key `geo` is taken out: its primary geometry column is gone"]);
}

#[test]
fn what_cannot_be_read_goes_only_where_columns_change() {
    let broken = [("pandas", Some("{")), (SPARK_ROW, None), ("parquet.avro.schema", Some("[]")), ("mine", Some("{"))];
    let file = file(&broken);
    let only_values = Change { key_values: vec![("version".into(), Some("2".into()))], ..Change::default() };
    let result = edited(&file, &only_values);
    assert!(result.notes.is_empty());
    let keys = |edited: &Edited| -> Vec<String> {
        let entries = edited.entries.iter().flatten();
        entries.map(|entry| entry.text(key_value::KEY).unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&result), ["pandas", SPARK_ROW, "parquet.avro.schema", "mine", ARROW_SCHEMA, "version"]);
    let result = edited(&file, &change(DataType::Utf8));
    assert_eq!(keys(&result), ["mine", ARROW_SCHEMA]);
    assert_eq!(result.notes.len(), 3);
    assert!(result.notes[1].ends_with("its value is not text"), "{:?}", result.notes);
}

#[test]
fn a_stale_arrow_schema_goes() {
    let good = file(&[]);
    let text = good.key_value(ARROW_SCHEMA).unwrap().to_owned();
    let with = |value: &str| {
        // The writer of the crate puts its own behind; the tree is edited instead.
        let mut tree = good.tree().clone();
        let mut entries = Vec::new();
        set(&mut entries, ARROW_SCHEMA, Some(value));
        tree.set_structures(ids::KEY_VALUES, entries);
        File::from_footer("a.parquet", good.length(), &tree.to_bytes())
    };
    let change = change(DataType::Utf8);
    assert!(edited(&with(&text).unwrap(), &change).notes.is_empty());
    let other = samples::file(&[samples::batch(&[0, 1], 10, 1)], WriterProperties::builder().build());
    let other = match File::parse("b.parquet", other.len() as u64, &other).unwrap() {
        Parsed::File(file) => file.key_value(ARROW_SCHEMA).unwrap().to_owned(),
        Parsed::Needs(more) => panic!("{more}"),
    };
    for stale in ["????", "AAAA", &text[..text.len() / 2], &other] {
        let file = with(stale).unwrap();
        assert!(file.schema_fault().is_some());
        assert_eq!(file.schema().fields().len(), 3);
        let result = edited(&file, &change);
        assert_eq!(value(&result, ARROW_SCHEMA), None);
        assert!(
            result.notes[0].starts_with("key `ARROW:schema` is taken out: it contradicts the file"),
            "{:?}",
            result.notes
        );
    }
}

#[test]
fn keys_are_set_once_and_removed_wholly() {
    let entry = |key: &str, text: &str| -> Struct {
        [(key_value::KEY, Value::text(key)), (key_value::VALUE, Value::text(text))].into_iter().collect()
    };
    let mut entries = vec![entry("a", "1"), entry("b", "2"), entry("a", "3")];
    set(&mut entries, "a", Some("4"));
    assert_eq!(entries, [entry("a", "4"), entry("b", "2")]);
    set(&mut entries, "c", Some("5"));
    set(&mut entries, "b", None);
    set(&mut entries, "never", None);
    assert_eq!(entries, [entry("a", "4"), entry("c", "5")]);
}

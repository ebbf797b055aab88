//! `ARROW:schema`: an IPC message in base64, the schema that the writer had in memory.

use std::sync::Arc;

use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::root_as_message;
use arrow_schema::{FieldRef, Schema};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parquet::arrow::encode_arrow_schema;
use parquet::errors::ParquetError;

use super::{File, Outcome, Wanted, pandas};
use crate::parquet::agreement::guarded;

/// Fields follow the columns; kept ones keep their types and metadata.
pub(super) fn edit(file: &File, text: &str, wanted: &[Wanted], _notes: &mut Vec<String>) -> Outcome {
    if let Some(fault) = file.schema_fault() {
        return Err(format!("it contradicts the file: {fault}"));
    }
    let schema = decode(text)?;
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let roots: Vec<&str> = file.roots().iter().map(|root| root.name.as_str()).collect();
    if names != roots {
        return Err(format!("it names the columns {names:?}, the file {roots:?}"));
    }
    let fields: Option<Vec<FieldRef>> = wanted
        .iter()
        .map(|wanted| match (wanted.field, wanted.old) {
            (Some(field), _) => Some(Arc::new(field.clone().with_name(wanted.name))),
            (None, old) => {
                let field = schema.fields().iter().find(|field| Some(field.name().as_str()) == old)?;
                Some(Arc::new(field.as_ref().clone().with_name(wanted.name)))
            }
        })
        .collect();
    let fields = fields.ok_or("a column is not in it")?;
    // The writer of pyarrow keeps a copy of the key `pandas` inside.
    let mut metadata = schema.metadata;
    if let Some(text) = metadata.get("pandas") {
        match pandas::edit(text, wanted) {
            Ok(edited) => metadata.insert("pandas".into(), edited),
            Err(_) => metadata.remove("pandas"),
        };
    }
    let schema = Schema::new_with_metadata(fields, metadata);
    guarded(|| Ok(encode_arrow_schema(&schema)))
}

fn decode(text: &str) -> Result<Schema, String> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| format!("it is not base64: {error}"))?;
    // A marker and a length stand before the message; files of before Arrow 0.15 have neither.
    let message = if bytes.starts_with(&[0xff; 4]) { bytes.get(8..).unwrap_or_default() } else { &bytes };
    guarded(|| {
        let message = root_as_message(message).map_err(|error| ParquetError::General(error.to_string()))?;
        let schema = message.header_as_schema().ok_or_else(|| ParquetError::General("it holds no schema".into()))?;
        Ok(fb_to_schema(schema))
    })
}

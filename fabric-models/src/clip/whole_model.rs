//! Extracts the configuration of one encoder from that of a whole `CLIPModel`.

use serde_json::{Map, Value};

/// Class that contains a text encoder and an image encoder, each with its projection.
pub(super) const CLASS: &str = "CLIPModel";

/// Returns the configuration of one encoder: the `section` of a whole model's, or `fields` itself. Fields that are
/// `null` are omitted, as transformers writes `null` for the default.
pub(super) fn part(mut fields: Map<String, Value>, section: &str) -> Value {
    if fields.get("model_type").is_some_and(|kind| kind == "clip") {
        let whole = fields;
        fields = match whole.get(section) {
            Some(Value::Object(part)) => part.clone(),
            _ => Map::new(),
        };
        // The projections are modules of the whole model, and their width is one of its fields.
        let of_whole = |(name, value): &(String, Value)| name == "projection_dim" && !value.is_null();
        fields.extend(whole.into_iter().filter(of_whole));
        fields.insert("architectures".to_owned(), vec![CLASS].into());
    }
    fields.retain(|_, value| !value.is_null());
    Value::Object(fields)
}

//! The settings of a whole `CLIPModel`, of which an encoder reads its part.

use serde_json::{Map, Value};

/// The class of a text and an image encoder in one, each with its projection.
pub(super) const CLASS: &str = "CLIPModel";

/// The settings of one encoder: the `section` of a whole model's, or `fields` themselves. Fields that are `null` are left
/// out, as transformers writes that for the default.
pub(super) fn part(mut fields: Map<String, Value>, section: &str) -> Value {
    if fields.get("model_type").is_some_and(|kind| kind == "clip") {
        let whole = fields;
        fields = match whole.get(section) {
            Some(Value::Object(part)) => part.clone(),
            _ => Map::new(),
        };
        // The projections are parts of the whole model, and their width stands there.
        let of_whole = |(name, value): &(String, Value)| name == "projection_dim" && !value.is_null();
        fields.extend(whole.into_iter().filter(of_whole));
        fields.insert("architectures".to_owned(), vec![CLASS].into());
    }
    fields.retain(|_, value| !value.is_null());
    Value::Object(fields)
}

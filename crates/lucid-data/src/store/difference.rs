//! Where two JSON values differ, for messages.

use serde_json::Value;

/// The dotted name of the first field that differs below `name`, with both values as text.
pub(super) fn difference(name: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    if a == b {
        return None;
    }
    if let (Value::Object(x), Value::Object(y)) = (a, b) {
        let mut fields: Vec<&String> = x.keys().chain(y.keys()).collect();
        fields.sort();
        let deeper = fields.into_iter().find_map(|field| {
            let inner = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
            difference(&inner, x.get(field).unwrap_or(&Value::Null), y.get(field).unwrap_or(&Value::Null))
        });
        if deeper.is_some() {
            return deeper;
        }
    }
    Some((name.to_string(), a.to_string(), b.to_string()))
}

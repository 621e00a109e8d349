//! As much of JSON Schema, in OpenAPI's dialect, as GitHub's description uses.

use serde_json::Value;

/// What does not fit, each with its place; empty where `value` is as `schema` says.
pub fn complaints(root: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(root, schema, value, "", &mut found);
    found
}

/// Follows a `$ref`.
pub fn resolved<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    while let Some(Value::String(link)) = schema.get("$ref") {
        schema = root.pointer(link.trim_start_matches('#')).unwrap_or_else(|| panic!("{link} leads nowhere"));
    }
    schema
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolved(root, schema);
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool);
    if value.is_null() && flag("nullable") == Some(true) {
        return;
    }
    for one in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        check(root, one, value, at, found);
    }
    for word in ["anyOf", "oneOf"] {
        let Some(choices) = schema.get(word).and_then(Value::as_array) else { continue };
        let tried: Vec<Vec<String>> = choices.iter().map(|one| complaints(root, one, value)).collect();
        if !tried.iter().any(Vec::is_empty) {
            found.push(format!("{at}: fits none of {word}: {:?}", tried.first()));
        }
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        found.push(format!("{at}: {value} is not one of {allowed:?}"));
    }
    let fits = match schema.get("type").and_then(Value::as_str) {
        None => true,
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("unknown type {other}"),
    };
    if !fits {
        found.push(format!("{at}: {value} is no {}", schema["type"]));
        return;
    }
    match value {
        Value::Array(items) => {
            let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
            let count = items.len() as u64;
            if limit("minItems").is_some_and(|least| count < least)
                || limit("maxItems").is_some_and(|most| count > most)
            {
                found.push(format!("{at}: {count} items"));
            }
            for (n, item) in items.iter().enumerate() {
                if let Some(of) = schema.get("items") {
                    check(root, of, item, &format!("{at}[{n}]"), found);
                }
            }
        }
        Value::Object(fields) => {
            let properties = schema.get("properties");
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                let name = name.as_str().unwrap();
                if !fields.contains_key(name) {
                    found.push(format!("{at}.{name} is missing"));
                }
            }
            for (name, field) in fields {
                let at = format!("{at}.{name}");
                match (properties.and_then(|all| all.get(name)), schema.get("additionalProperties")) {
                    (Some(known), _) => check(root, known, field, &at, found),
                    (None, Some(Value::Bool(false))) => found.push(format!("{at} is unknown")),
                    (None, Some(of @ Value::Object(_))) => check(root, of, field, &at, found),
                    (None, _) => {}
                }
            }
        }
        Value::String(text)
            if schema.get("format").and_then(Value::as_str) == Some("date-time")
                && lxdrunner::model::Timestamp::parse(text).is_none() =>
        {
            found.push(format!("{at}: {text:?} is no time"));
        }
        _ => {}
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {
            "a": {"type": "integer"}, "b": {"type": "array", "minItems": 1, "items": {"enum": ["x", "y"]}},
            "c": {"oneOf": [{"type": "string"}, {"type": "number", "nullable": true}]}, "d": {"$ref": "#/time"}
        }
    });
    let root = serde_json::json!({"time": {"type": "string", "format": "date-time", "nullable": true}});
    #[track_caller]
    fn check(root: &Value, schema: &Value, json: &str, count: usize) {
        let value = serde_json::from_str(json).unwrap();
        let found = complaints(root, schema, &value);
        assert_eq!(found.len(), count, "{json}: {found:?}");
    }
    check(&root, &schema, r#"{"a":1,"b":["x"],"c":null,"d":null}"#, 0);
    check(&root, &schema, r#"{"a":1,"c":"t","d":"2026-01-02T03:04:05Z"}"#, 0);
    check(&root, &schema, r#"{}"#, 1);
    check(&root, &schema, r#"{"a":"1","b":[],"c":[],"d":"then","e":1}"#, 5);
    check(&root, &schema, r#"{"a":1.5,"b":["z","x",7]}"#, 3);
    check(&root, &schema, r#"[]"#, 1);
}

//! Types into JSON that can be read again, and JSON into types, with errors that name the field and
//! never repeat a value: they go to logs, and what stands in a field may belong into another.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::finite;

/// How deep objects and lists may lie in each other: what `serde_json` reads at most.
const DEPTH_MAX: usize = 127;

/// Writes JSON that [`from_slice`] can read; an error says why there is none.
pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    finite::check(value).map_err(|error| error.to_string())?;
    let json = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    match depth(&json) {
        ..=DEPTH_MAX => Ok(json),
        depth => Err(format!("it is nested {depth} deep, {DEPTH_MAX} is the most")),
    }
}

/// How deep objects and lists lie in each other, in JSON.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// Reads JSON; an error says where it does not fit, and what belongs there.
pub(crate) fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| said(&error))?;
    deserializer.end().map_err(|error| without_values(&error.to_string()))?;
    Ok(read)
}

/// As [`from_slice`], of JSON that was read before.
pub(crate) fn from_fields<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, String> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| said(&error))
}

fn said(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let problem = without_values(&error.inner().to_string());
    match error.path().iter().next() {
        None => problem,
        Some(_) => format!("{}: {problem}", error.path()),
    }
}

/// What serde says, without the values it quotes. What a type of the host says is the host's.
fn without_values(problem: &str) -> String {
    for kind in ["invalid type: ", "invalid value: ", "unknown variant "] {
        let Some(rest) = problem.strip_prefix(kind) else { continue };
        // The value itself may hold anything, this word too.
        let expected = rest.rfind(", expected ").map_or("", |at| &rest[at..]);
        let what = rest.split(['`', '"', ',']).next().unwrap_or_default();
        let named = format!("{kind}{what}");
        return format!("{}{expected}", named.trim_end());
    }
    problem.to_owned()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Way {
        In,
        Out,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Inner {
        cents: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Event {
        amount: Option<Inner>,
        way: Option<Way>,
    }

    #[test]
    fn what_is_written_can_be_read_again_or_is_not_written() {
        let list = |inner: Value| Value::Array(vec![inner]);
        let nested = |depth| (1..depth).fold(Value::Array(Vec::new()), |inner, _| list(inner));
        let deepest = to_vec(&nested(DEPTH_MAX)).unwrap();
        assert_eq!(from_slice::<Value>(&deepest), Ok(nested(DEPTH_MAX)));
        let error = to_vec(&nested(DEPTH_MAX + 1)).unwrap_err();
        assert_eq!(error, "it is nested 128 deep, 127 is the most");
        let brackets_in_text = serde_json::json!({ "a\\\"[": ["\\", "[".repeat(200)] });
        assert!(to_vec(&brackets_in_text).is_ok());
        assert_eq!(depth(br#"{"a":[{}],"b":{}}"#), 3);
        let error = to_vec(&(1, Some(f64::NAN))).unwrap_err();
        assert_eq!(error, "it has the number NaN, for which JSON has no spelling");
    }

    #[test]
    fn the_field_is_named_and_no_value_is_repeated() {
        let cases = [
            (
                r#"{"amount":{"cents":"s3cret, expected u8"}}"#,
                "amount.cents: invalid type: string, ",
            ),
            (r#"{"amount":{"cents":7777}}"#, "amount.cents: invalid value: integer, expected u8"),
            (r#"{"amount":{"cents":77.75}}"#, "amount.cents: invalid type: floating point, "),
            (r#"{"amount":{"cents":true}}"#, "amount.cents: invalid type: boolean, expected u8"),
            (r#"{"amount":{}}"#, "amount: missing field `cents`"),
            (r#"{"way":"s3cret"}"#, "way: unknown variant, expected `in` or `out`"),
            (r#"{"way":null,"more":7777}"#, "unknown field `more`"),
            (r#""s3cret""#, "invalid type: string, expected struct Event"),
            (r#"{"way":"in"} s3cret"#, "trailing characters"),
            (r#"{"way":s3cret}"#, "expected value"),
        ];
        for (json, wrong) in cases {
            let error = from_slice::<Event>(json.as_bytes()).unwrap_err();
            assert!(error.contains(wrong), "{json}: {error}");
            let values = ["s3cret", "7777", "77.75", "true"];
            assert!(values.iter().all(|value| !error.contains(value)), "{json}: {error}");
        }
        let fields = serde_json::from_str(r#"{"way":"s3cret"}"#).unwrap();
        let error = from_fields::<Event>(fields).unwrap_err();
        assert_eq!(error, "way: unknown variant, expected `in` or `out`");
    }
}

//! Which JSON Postgres can hold as `jsonb`: nearly all, but not all that is JSON.

/// Nesting that every server takes; where it stops depends on its stack.
const DEPTH_MAX: usize = 1_000;
/// What `numeric` holds before and after the decimal point.
const WHOLE_DIGITS_MAX: i64 = 131_072;
const FRACTION_DIGITS_MAX: i64 = 16_383;
/// Digits that all long numbers together may be printed with: `1e131071` is 8 bytes, and 128 KiB as
/// text, of which Postgres makes 1 GiB at most.
const LONG_DIGITS_MAX: i64 = 16 << 20;

/// Checks that Postgres can hold what is known to be JSON.
///
/// # Errors
/// Why it cannot.
pub(crate) fn check(json: &[u8]) -> Result<(), String> {
    let (mut depth, mut at, mut long_digits) = (0_usize, 0, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at = check_string(json, at + 1)?;
                continue;
            }
            b'-' | b'0'..=b'9' => {
                at = check_number(json, at, &mut long_digits)?;
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(format!("its JSON is nested deeper than {DEPTH_MAX} levels"));
        }
        at += 1;
    }
    Ok(())
}

/// From behind the opening quote; where the closing one ends.
fn check_string(json: &[u8], mut at: usize) -> Result<usize, String> {
    loop {
        let rest = json.get(at..).unwrap_or_default();
        let Some(found) = memchr::memchr2(b'"', b'\\', rest) else {
            return Ok(json.len());
        };
        at += found;
        if json[at] == b'"' {
            return Ok(at + 1);
        }
        let Some(unit) = escaped_unit(json, at) else {
            at += 2;
            continue;
        };
        match unit {
            0 => return Err("its JSON has \\u0000 in a text".to_owned()),
            0xD800..0xDC00 => match escaped_unit(json, at + 6) {
                Some(0xDC00..0xE000) => at += 12,
                _ => return Err("its JSON has half of a surrogate pair in a text".to_owned()),
            },
            0xDC00..0xE000 => {
                return Err("its JSON has half of a surrogate pair in a text".to_owned());
            }
            _ => at += 6,
        }
    }
}

/// The UTF-16 code unit of `\uXXXX`, if that stands there.
fn escaped_unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Where the number ends.
fn check_number(json: &[u8], start: usize, long_digits: &mut i64) -> Result<usize, String> {
    let rest = &json[start..];
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let end = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    let number = &rest[..end];
    // Short, and without an exponent: nearly every number.
    if end > 18 || number.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        *long_digits += check_long_number(number)?;
        if *long_digits > LONG_DIGITS_MAX {
            return Err(format!(
                "its JSON has numbers of more than {LONG_DIGITS_MAX} digits in all"
            ));
        }
    }
    Ok(start + end)
}

/// With how many digits it is printed, at most.
fn check_long_number(number: &[u8]) -> Result<i64, String> {
    let text = String::from_utf8_lossy(number);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent_of(exponent);
    let digits = |text: &str| {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        i64::try_from(digits).unwrap_or(i64::MAX)
    };
    let whole_digits = digits(whole).saturating_add(exponent);
    let fraction_digits = digits(fraction).saturating_sub(exponent);
    if whole_digits > WHOLE_DIGITS_MAX || fraction_digits > FRACTION_DIGITS_MAX {
        let shown: String = text.chars().take(24).collect();
        return Err(format!(
            "its JSON has the number {shown}: `numeric` has {WHOLE_DIGITS_MAX} digits before the \
             point and {FRACTION_DIGITS_MAX} behind it"
        ));
    }
    Ok(whole_digits.max(0) + fraction_digits.max(0))
}

/// One with too many digits counts as the largest.
fn exponent_of(text: &str) -> i64 {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.trim_start_matches('0');
    let value = if digits.len() > 9 { i64::from(i32::MAX) } else { digits.parse().unwrap_or(0) };
    sign * value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_holds_passes() {
        let deep = "[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX);
        let legal = [
            r#"{"a":"x\\u0000","b":"\ud83d\ude00","c":"\"","d":[1,-2.5e-3,1E+10,0.0]}"#,
            r#""\\""#,
            "1e131071",
            "1e-16383",
            "12345678901234567890123456789.5",
            "-0",
            "null",
            &deep,
        ];
        for json in legal {
            assert_eq!(check(json.as_bytes()), Ok(()), "{json:.40}");
        }
    }

    #[test]
    fn what_it_does_not_hold_is_refused_with_its_reason() {
        let deep = "[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1);
        let many_long = format!("[{}0]", "1e131071,".repeat(129));
        let cases = [
            (r#"{"a":"x\u0000"}"#, "\\u0000"),
            (r#"{"\u0000":1}"#, "\\u0000"),
            (r#""\\\u0000""#, "\\u0000"),
            (r#""\ud83d""#, "surrogate"),
            (r#""\ud83d\u0041""#, "surrogate"),
            (r#""\ude00""#, "surrogate"),
            ("[1e400000]", "1e400000"),
            ("1e131072", "digits"),
            ("1e-16384", "digits"),
            ("1e99999999999999999999", "digits"),
            (&many_long, "16777216 digits in all"),
            (&deep, "nested"),
        ];
        for (json, expected) in cases {
            let problem = check(json.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{json:.40}: {problem}");
        }
    }
}

//! Whether JSON can hold a value's numbers. `serde_json` writes `null` for one that is not finite:
//! what is read again is another value, or none.

use std::fmt::{self, Display};

use serde::Serialize;
use serde::ser::{self, Serializer};

/// A number that JSON has no spelling for, or what the value's own code says.
#[derive(Debug)]
pub(crate) struct NotFinite(String);

impl Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFinite {}

impl ser::Error for NotFinite {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Goes through a value as a serializer does, and writes nothing.
pub(crate) fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), NotFinite> {
    value.serialize(Finite)
}

struct Finite;

type Checked = Result<(), NotFinite>;

fn of_float(number: f64) -> Checked {
    if number.is_finite() {
        return Ok(());
    }
    Err(NotFinite(format!("it has the number {number}, for which JSON has no spelling")))
}

/// What has no number that may be wrong.
macro_rules! pass {
    ($($method:ident($($of:ty),*),)*) => {
        $(fn $method(self, $(_: $of),*) -> Checked { Ok(()) })*
    };
}

/// What has parts.
macro_rules! enter {
    ($($method:ident($($of:ty),*),)*) => {
        $(fn $method(self, $(_: $of),*) -> Result<Self, NotFinite> { Ok(self) })*
    };
}

impl Serializer for Finite {
    type Ok = ();
    type Error = NotFinite;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    pass! {
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_none(),
        serialize_unit(),
        serialize_unit_struct(&'static str),
        serialize_unit_variant(&'static str, u32, &'static str),
    }

    enter! {
        serialize_seq(Option<usize>),
        serialize_tuple(usize),
        serialize_tuple_struct(&'static str, usize),
        serialize_tuple_variant(&'static str, u32, &'static str, usize),
        serialize_map(Option<usize>),
        serialize_struct(&'static str, usize),
        serialize_struct_variant(&'static str, u32, &'static str, usize),
    }

    fn serialize_f32(self, number: f32) -> Checked {
        of_float(number.into())
    }

    fn serialize_f64(self, number: f64) -> Checked {
        of_float(number)
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Checked {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Checked {
        check(value)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Checked {
        check(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Checked {
        check(value)
    }
}

/// The parts of a value, one after another.
macro_rules! check_parts {
    ($($of:ident: $method:ident($($name:ty)?),)*) => {
        $(impl ser::$of for Finite {
            type Ok = ();
            type Error = NotFinite;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? part: &T) -> Checked {
                check(part)
            }

            fn end(self) -> Checked {
                Ok(())
            }
        })*
    };
}

check_parts! {
    SerializeSeq: serialize_element(),
    SerializeTuple: serialize_element(),
    SerializeTupleStruct: serialize_field(),
    SerializeTupleVariant: serialize_field(),
    SerializeStruct: serialize_field(&'static str),
    SerializeStructVariant: serialize_field(&'static str),
}

impl ser::SerializeMap for Finite {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked {
        check(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        check(value)
    }

    fn end(self) -> Checked {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Clone, Serialize)]
    struct Pair(u8, f32);

    #[derive(Clone, Serialize)]
    enum Shape {
        Empty,
        One(f64),
        Two(u8, f64),
        Named { number: f64 },
    }

    #[derive(Clone, Serialize)]
    struct All {
        optional: Option<f64>,
        list: Vec<f64>,
        pair: Pair,
        tuple: (u8, f64),
        map: BTreeMap<String, f64>,
        shapes: Vec<Shape>,
        texts: (char, String, (), Option<u8>, i128),
    }

    #[test]
    fn a_number_that_is_not_finite_is_found_wherever_it_stands() {
        let finite = All {
            optional: Some(1.5),
            list: vec![f64::MAX, f64::MIN_POSITIVE, -0.0],
            pair: Pair(1, f32::MAX),
            tuple: (1, 2.0),
            map: [("a".to_owned(), 1.0)].into(),
            shapes: vec![Shape::Empty, Shape::One(1.0), Shape::Two(1, 1.0)],
            texts: ('a', "NaN".to_owned(), (), None, i128::MAX),
        };
        check(&finite).unwrap();
        let broken: [fn(&mut All); 8] = [
            |all| all.optional = Some(f64::NAN),
            |all| all.list.push(f64::INFINITY),
            |all| all.pair.1 = f32::NEG_INFINITY,
            |all| all.tuple.1 = f64::NAN,
            |all| all.map.extend([("b".to_owned(), f64::NAN)]),
            |all| all.shapes.push(Shape::One(f64::NAN)),
            |all| all.shapes.push(Shape::Two(1, f64::NAN)),
            |all| all.shapes.push(Shape::Named { number: f64::NAN }),
        ];
        for (number, break_it) in broken.into_iter().enumerate() {
            let mut all = finite.clone();
            break_it(&mut all);
            let error = check(&all).expect_err("it has no JSON").to_string();
            assert!(error.starts_with("it has the number "), "{number}: {error}");
        }
    }
}

//! How a field's value is spelled in JSON, in words for people: one column of the catalogue's page.

use std::net::IpAddr;

use quipu_client::{Timestamp, Uuid};
use serde_json::{Map, Value};

/// A type that a field of an event may have.
pub trait FieldType {
    /// Whether the field may be left out.
    const IS_OPTIONAL: bool = false;

    /// Its JSON, in words.
    fn spelling() -> String;
}

impl<T: FieldType> FieldType for Option<T> {
    const IS_OPTIONAL: bool = true;

    fn spelling() -> String {
        T::spelling()
    }
}

impl<T: FieldType> FieldType for Vec<T> {
    fn spelling() -> String {
        format!("list of {}", T::spelling())
    }
}

/// Gives types their spelling.
macro_rules! spelled {
    ($($type:ty: $spelling:literal),* $(,)?) => {
        $(impl $crate::field_type::FieldType for $type {
            fn spelling() -> String {
                $spelling.to_owned()
            }
        })*
    };
}
pub(crate) use spelled;

spelled! {
    bool: "`true` or `false`",
    IpAddr: "IP address",
    Map<String, Value>: "object",
    String: "text",
    Timestamp: "time, RFC 3339",
    Uuid: "UUID",
}

/// Declares a closed set of words: an enum, and each variant's text in JSON.
macro_rules! words {
    (
        $(#[doc = $doc:literal])*
        $name:ident { $($(#[doc = $word_doc:literal])* $word:ident = $text:literal),* $(,)? }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        pub enum $name {
            $($(#[doc = $word_doc])* #[serde(rename = $text)] $word),*
        }

        impl $crate::field_type::FieldType for $name {
            fn spelling() -> String {
                [$(concat!("`", $text, "`")),*].join(", ")
            }
        }
    };
}
pub(crate) use words;

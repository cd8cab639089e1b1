//! How the catalogue is declared: one declaration gives an event its struct, its name in the log,
//! its schema version, its place in its aggregate's enum, its fields on the page, and its example.

use quipu_client::{AggregateEvent, EncodedEvent};
use serde::Serialize;

/// What the catalogue says of one event.
#[derive(Clone, Debug)]
pub struct EventDescription {
    /// Its name in the log.
    pub name: &'static str,
    /// The type of the aggregates it belongs to.
    pub aggregate_type: &'static str,
    /// When it happens, and what it says.
    pub documentation: String,
    /// Its fields, in the order of its JSON.
    pub fields: Vec<FieldDescription>,
    /// One such event as the log stores it.
    pub example: EncodedEvent,
    /// The same JSON, laid out for people.
    pub example_json: String,
}

/// What the catalogue says of one field.
#[derive(Clone, Debug)]
pub struct FieldDescription {
    /// Its name in JSON.
    pub name: &'static str,
    /// Whether it may be left out.
    pub is_optional: bool,
    /// Its JSON, in words.
    pub spelling: String,
    /// What it says.
    pub documentation: String,
}

/// What the catalogue says of the events of one aggregate type.
#[derive(Clone, Debug)]
pub struct FamilyDescription {
    /// The aggregate type.
    pub aggregate_type: &'static str,
    /// What one such aggregate is, and its id.
    pub documentation: String,
    /// Its events.
    pub events: Vec<EventDescription>,
}

/// Lines of documentation as one text.
pub(crate) fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// An example as the log stores it.
pub(crate) fn encoded(event: &impl AggregateEvent) -> EncodedEvent {
    event.encode().expect("an example is made of values that have JSON")
}

/// An example laid out for people.
pub(crate) fn pretty(event: &impl Serialize) -> String {
    serde_json::to_string_pretty(event).expect("an example is made of values that have JSON")
}

/// Declares the events of one aggregate type.
///
/// ```text
/// events! {
///     /// What one such aggregate is, and its id.
///     DoorEvent of "Door";
///
///     /// When it happens.
///     DoorOpened from [v1_to_v2] {          // upcasters, only where there are older versions
///         /// What the field says.
///         opened_by: Uuid = example::user(),
///     }
/// }
/// ```
///
/// An optional field is an `Option` with
/// `#[serde(skip_serializing_if = "Option::is_none")]`.
macro_rules! events {
    (
        $(#[doc = $family_doc:literal])*
        $family:ident of $aggregate:literal;
        $(
            $(#[doc = $doc:literal])*
            $event:ident $(from [$($upcaster:path),+ $(,)?])? {
                $(
                    $(#[doc = $field_doc:literal])*
                    $(#[serde($($serde:tt)*)])?
                    $field:ident: $type:ty = $example:expr
                ),* $(,)?
            }
        )*
    ) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $event {
                $(
                    $(#[doc = $field_doc])*
                    $(#[serde($($serde)*)])?
                    pub $field: $type,
                )*
            }

            impl ::quipu_client::EventType for $event {
                const NAME: &'static str = stringify!($event);
                const AGGREGATE_TYPE: &'static str = $aggregate;
                const UPCASTERS: &'static [::quipu_client::Upcaster] = &[$($($upcaster),+)?];
            }

            impl $event {
                /// One such event, as the catalogue's page shows it.
                #[must_use]
                pub fn example() -> Self {
                    Self { $($field: $example),* }
                }
            }

            impl From<$event> for $family {
                fn from(event: $event) -> Self {
                    Self::$event(event)
                }
            }
        )*

        $(#[doc = $family_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $family {
            $($(#[doc = $doc])* $event($event)),*
        }

        impl ::quipu_client::AggregateEvent for $family {
            fn encode(&self) -> Result<::quipu_client::EncodedEvent, ::quipu_client::EncodeError> {
                match self {
                    $(Self::$event(event) => ::quipu_client::encode_event(event)),*
                }
            }

            fn decode(record: &::quipu_client::Record)
                -> Result<Self, ::quipu_client::DecodeError> {
                match record.event_type() {
                    $(stringify!($event) => {
                        ::quipu_client::decode_event::<$event>(record).map(Self::$event)
                    })*
                    _ => Err(::quipu_client::DecodeProblem::UnknownType.of(record)),
                }
            }
        }

        impl $family {
            /// The type of the aggregates that these belong to.
            pub const AGGREGATE_TYPE: &'static str = $aggregate;

            /// What the catalogue says of these events.
            #[must_use]
            pub fn description() -> $crate::events::FamilyDescription {
                $crate::events::FamilyDescription {
                    aggregate_type: $aggregate,
                    documentation: $crate::events::text(&[$($family_doc),*]),
                    events: vec![$($crate::events::EventDescription {
                        name: stringify!($event),
                        aggregate_type: $aggregate,
                        documentation: $crate::events::text(&[$($doc),*]),
                        fields: vec![$($crate::events::FieldDescription {
                            name: stringify!($field),
                            is_optional: <$type as $crate::field_type::FieldType>::IS_OPTIONAL,
                            spelling: <$type as $crate::field_type::FieldType>::spelling(),
                            documentation: $crate::events::text(&[$($field_doc),*]),
                        }),*],
                        example: $crate::events::encoded(&Self::from($event::example())),
                        example_json: $crate::events::pretty(&$event::example()),
                    }),*],
                }
            }
        }
    };
}
pub(crate) use events;

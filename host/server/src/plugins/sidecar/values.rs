//! The values in a sidecar, each with its bounds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Error, Visitor};

/// The most entries in a list of grants.
const MAX_GRANTS: usize = 256;

/// `"64 MiB"`, or a number of bytes.
pub(super) struct Size<const MIN: usize, const MAX: usize>(pub(super) usize);

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Size<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, as in \"64 MiB\"")
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
                let unexpected = de::Unexpected::Signed(bytes);
                u64::try_from(bytes).map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
                let size = bytesize::ByteSize::from_str(text);
                size.map(|size| size.as_u64()).map_err(|_| {
                    E::custom(format!(
                        "'{text}' is not a size: write it like \"64 MiB\" or \"512 KiB\""
                    ))
                })
            }
        }

        let bytes = deserializer.deserialize_any(Bytes)?;
        let size = usize::try_from(bytes).ok().filter(|size| (MIN..=MAX).contains(size));
        size.map(Size).ok_or_else(|| {
            let text = |bytes: usize| bytesize::ByteSize::b(bytes as u64).display().iec();
            let (given, min, max) = (bytesize::ByteSize::b(bytes), text(MIN), text(MAX));
            Error::custom(format!("{} is not between {min} and {max}", given.display().iec()))
        })
    }
}

/// `"500ms"`
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A longer time is a mistake.
        const MAX: Duration = Duration::from_secs(24 * 3600);
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_duration(&text).map_err(|_| {
            Error::custom(format!(
                "'{text}' is not a time: write it like \"500ms\", \"10s\" or \"2m\""
            ))
        })?;
        if time.is_zero() || time > MAX {
            return Err(Error::custom(format!("'{text}' must be above zero and at most a day")));
        }
        Ok(Time(time))
    }
}

/// A number within bounds.
pub(super) struct Count<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = i64::deserialize(deserializer)?;
        let within = u32::try_from(count).ok().filter(|count| (MIN..=MAX).contains(count));
        within
            .map(Count)
            .ok_or_else(|| Error::custom(format!("{count} is not between {MIN} and {MAX}")))
    }
}

/// A list with a bounded number of entries.
pub(super) struct Bounded<T>(pub(super) Vec<T>);

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Bounded(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::deserialize(deserializer)?;
        if entries.len() > MAX_GRANTS {
            let message = format!("{} entries, at most {MAX_GRANTS} are allowed", entries.len());
            return Err(Error::custom(message));
        }
        Ok(Bounded(entries))
    }
}

/// A value that is written as a string.
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Parsed).map_err(Error::custom)
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VariableName(pub(super) String);

impl<'de> Deserialize<'de> for VariableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::custom(format!("{name:?} is not a valid variable name")));
        }
        Ok(VariableName(name))
    }
}

/// A variable of this process that a plugin gets too.
pub(super) struct InheritedName(pub(super) String);

/// Variables of this process that may hold secrets begin with this.
const OWN_VARIABLES: &str = "WHARF_";

impl<'de> Deserialize<'de> for InheritedName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let VariableName(name) = VariableName::deserialize(deserializer)?;
        if name.starts_with(OWN_VARIABLES) {
            return Err(Error::custom(format!(
                "{name} is this host's own and may hold a secret: it cannot be inherited"
            )));
        }
        Ok(InheritedName(name))
    }
}

pub(super) struct VariableValue(pub(super) String);

impl<'de> Deserialize<'de> for VariableValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        if value.contains('\0') {
            return Err(Error::custom("the value of a variable must not contain a zero byte"));
        }
        Ok(VariableValue(value))
    }
}

pub(super) struct GuestPath(pub(super) String);

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        if !path.starts_with('/') {
            let message =
                format!("'{path}' is not an absolute path in the plugin: write it like \"/data\"");
            return Err(Error::custom(message));
        }
        Ok(GuestPath(path))
    }
}

//! WIT's `list<T, N>` with more elements than serde's arrays may have.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An array of any length. Its elements are encoded in a row, as serde does for arrays of up to 32
/// elements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FixedList<T, const N: usize>(pub [T; N]);

impl<T, const N: usize> Deref for FixedList<T, N> {
    type Target = [T; N];

    fn deref(&self) -> &[T; N] {
        &self.0
    }
}

impl<T, const N: usize> DerefMut for FixedList<T, N> {
    fn deref_mut(&mut self) -> &mut [T; N] {
        &mut self.0
    }
}

impl<T, const N: usize> From<[T; N]> for FixedList<T, N> {
    fn from(elements: [T; N]) -> Self {
        FixedList(elements)
    }
}

impl<T: Serialize, const N: usize> Serialize for FixedList<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        self.0.iter().try_for_each(|element| tuple.serialize_element(element))?;
        tuple.end()
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for FixedList<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = FixedList<T, N>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                // It grows as the elements come: a large `N` alone allocates nothing.
                let mut elements = Vec::new();
                while elements.len() < N {
                    let element = seq.next_element()?;
                    let so_far = elements.len();
                    elements.push(element.ok_or_else(|| Error::invalid_length(so_far, &self))?);
                }
                let found = elements.len();
                let array = elements.try_into();
                array.map(FixedList).map_err(|_: Vec<T>| Error::invalid_length(found, &self))
            }
        }

        deserializer.deserialize_tuple(N, Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_bytes_are_those_of_its_elements_in_a_row() {
        let list = FixedList::<u16, 40>(std::array::from_fn(|n| u16::try_from(n).unwrap() * 100));
        let bytes = postcard::to_stdvec(&list).unwrap();
        let halves: ([u16; 20], [u16; 20]) =
            (list[..20].try_into().unwrap(), list[20..].try_into().unwrap());
        assert_eq!(bytes, postcard::to_stdvec(&halves).unwrap());
        assert_eq!(postcard::from_bytes::<FixedList<u16, 40>>(&bytes).unwrap(), list);
        assert!(postcard::from_bytes::<FixedList<u16, 41>>(&bytes).is_err());
    }
}

//! The fast data path: passes encoded bytes to and from the codec that is spliced into the
//! component.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use wasmtime::component::{Func, TypedFunc, WasmList};
use wasmtime::{AsContextMut, Store};
use wharf_schema::ValueError;

use crate::callable::{Callable, PathError};
use crate::splice;
use crate::store::StoreData;
use crate::val_path;

/// The function of a codec. It takes a method's number, the largest size of the result in bytes,
/// and the arguments. It returns a status and the result.
type Function<'a> = TypedFunc<(u32, u32, &'a [u8]), ((u32, WasmList<u8>),)>;

/// The size of a block that small results share, in bytes.
const BLOCK: usize = 4 * 1024;

/// Results of up to this many bytes go into such a block.
const SMALL: usize = BLOCK / 8;

thread_local! {
    static RESULTS: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// The codec of one instance.
#[derive(Clone, Copy)]
pub(crate) struct Codec(Func);

impl Codec {
    /// # Errors
    /// When the function does not have the types of a codec.
    pub(crate) fn new(function: Func, store: &mut Store<StoreData>) -> wasmtime::Result<Self> {
        let _: Function<'_> = function.typed(store.as_context_mut())?;
        Ok(Codec(function))
    }

    /// Passes the arguments to the codec, and reads a result of at most `limit` bytes from it.
    pub(crate) async fn call(
        self,
        store: &mut Store<StoreData>,
        number: u32,
        method: &Callable,
        arguments: &[u8],
        limit: usize,
    ) -> Result<Bytes, PathError> {
        // SAFETY: `Codec::new` has checked the function against exactly these types. It checks them
        // once per instance and not once per call, because the check takes longer than the call of
        // a small function.
        #[expect(unsafe_code, reason = "the types were checked when this was made")]
        let function: Function<'_> = unsafe { TypedFunc::new_unchecked(self.0) };
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let ((status, result),) = function
            .call_async(store.as_context_mut(), (number, most, arguments))
            .await
            .map_err(PathError::Guest)?;
        match status.cast_signed() {
            // One copy of the whole result. As a `Vec`, it would be copied byte by byte.
            0 => Ok(copy(result.as_le_slice(&*store))),
            // The dynamic path finds out what is wrong, and where. It is slow, but that does not
            // matter for an error.
            splice::MALFORMED => Err(match val_path::decode(method, arguments) {
                Err(error) => error,
                Ok(_) => {
                    PathError::Arguments(ValueError::new("they do not fit the method's types"))
                }
            }),
            splice::ARGUMENTS_TOO_LARGE => Err(PathError::TooLarge(
                "the arguments would take more memory than a guest can have".to_owned(),
            )),
            splice::TOO_LARGE => Err(val_path::result_too_large(limit)),
            splice::OUT_OF_BOUNDS => Err(broken("a pointer or length out of bounds of its memory")),
            splice::NOT_ALIGNED => Err(broken("a pointer that is not aligned")),
            splice::NO_CASE => Err(broken("a discriminant that is out of range")),
            splice::NO_TEXT => Err(broken("a string that is not UTF-8")),
            splice::NO_CHAR => Err(broken("a number that is not a character")),
            _ => Err(broken("an unknown error")),
        }
    }
}

/// A copy of a result. Small results are placed one after the other in a block, so they need no
/// allocation of their own. The block is used again once all of them are dropped; a result that is
/// kept also keeps its block.
fn copy(result: &[u8]) -> Bytes {
    if result.is_empty() {
        return Bytes::new();
    }
    if result.len() > SMALL {
        return Bytes::copy_from_slice(result);
    }
    // A thread that is ending has no block any more.
    let block = RESULTS.try_with(Cell::take).ok().flatten();
    let mut block = block.unwrap_or_default();
    if block.capacity() < result.len() {
        block.reserve(BLOCK);
    }
    block.extend_from_slice(result);
    let bytes = block.split().freeze();
    let _ = RESULTS.try_with(|results| results.set(Some(block)));
    bytes
}

/// The error for a guest's result that breaks the canonical ABI.
fn broken(how: &str) -> PathError {
    PathError::Guest(wasmtime::Error::msg(format!("its result has {how}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_are_held_stay_as_they_were() {
        let sizes = (0..2000).map(|i| i % (2 * SMALL));
        let results: Vec<Vec<u8>> = sizes.map(|size| vec![size.to_le_bytes()[0]; size]).collect();
        let held: Vec<Bytes> = results.iter().map(|result| copy(result)).collect();
        assert!(held.iter().eq(&results));
    }

    #[test]
    fn results_share_a_block_that_is_used_again_once_they_are_dropped() {
        let results: Vec<Bytes> = (0..BLOCK / 8).map(|_| copy(b"8 bytes.")).collect();
        let begins = results[0].as_ptr();
        assert!(results.iter().enumerate().all(|(n, r)| r.as_ptr() == begins.wrapping_add(8 * n)));
        drop(results);
        assert_eq!(copy(b"the next").as_ptr(), begins);
    }
}

//! What all codecs have: reading and writing postcard's primitives in their own memory.
//!
//! Reading and writing never trap and never loop beyond their input: what goes wrong is noted in
//! [`ERROR`], and reading goes on at the end of the input, where there is nothing.

mod input;
mod output;

use wasm_encoder::ValType;
use wasm_encoder::ValType::I32;

use super::body::Body;

/// Where the next byte is read, and the first one that is not there.
pub(super) const POSITION: u32 = 0;
pub(super) const END: u32 = 1;
/// Where the arguments begin.
pub(super) const START: u32 = 2;
/// What went wrong first, as one of the numbers below; 0 as long as nothing did.
pub(super) const ERROR: u32 = 3;
/// Where the next byte is written, where the result begins, and the bytes that it may have.
pub(super) const OUT: u32 = 4;
pub(super) const OUT_START: u32 = 5;
pub(super) const LIMIT: u32 = 6;
/// How many globals there are.
pub(super) const GLOBALS: u32 = 7;

/// The arguments do not fit the types.
pub(crate) const MALFORMED: i32 = 1;
/// The result is larger than it may be.
pub(crate) const TOO_LARGE: i32 = 2;
/// The guest's result breaks the rules of its types: a pointer or length leads out of its memory, a
/// pointer is not aligned, there is no such case, a string is not UTF-8, a number is no character.
pub(crate) const OUT_OF_BOUNDS: i32 = 3;
pub(crate) const NOT_ALIGNED: i32 = 5;
pub(crate) const NO_CASE: i32 = 6;
pub(crate) const NO_TEXT: i32 = 7;
pub(crate) const NO_CHAR: i32 = 8;
/// The arguments would take more than a memory holds.
pub(crate) const ARGUMENTS_TOO_LARGE: i32 = 4;

/// Bytes of a page of memory.
const PAGE: i32 = 65536;

/// Where the helpers are among a codec's functions.
#[derive(Clone, Copy)]
pub(super) struct Helpers {
    /// The first one's index; the others follow.
    first: u32,
    /// The memories, by their indices.
    pub(super) own: u32,
    pub(super) guest: Option<u32>,
    realloc: Option<u32>,
}

impl Helpers {
    pub(super) fn new(first: u32, own: u32, guest: Option<u32>, realloc: Option<u32>) -> Self {
        Helpers { first, own, guest, realloc }
    }

    /// Notes that the input is malformed: `() -> ()`.
    pub(super) fn fail(&self) -> u32 {
        self.first
    }

    /// The next byte: `() -> i32`.
    pub(super) fn byte(&self) -> u32 {
        self.first + 1
    }

    /// A varint of at most so many bits: `(bits: i32) -> i64`.
    pub(super) fn varint(&self) -> u32 {
        self.first + 2
    }

    /// A length, which is no more than the bytes that follow: `() -> i32`.
    pub(super) fn length(&self) -> u32 {
        self.first + 3
    }

    /// So many bytes: `(count: i32) -> pointer`.
    pub(super) fn take(&self) -> u32 {
        self.first + 4
    }

    /// Whether bytes of the codec's memory are UTF-8: `(pointer, length) -> i32`.
    pub(super) fn is_text(&self) -> u32 {
        self.first + 5
    }

    /// A character: `() -> i32`.
    pub(super) fn char(&self) -> u32 {
        self.first + 6
    }

    /// Makes room for so many bytes of the result; whether there is: `(count: i32) -> i32`.
    pub(super) fn room(&self) -> u32 {
        self.first + 7
    }

    /// `(byte: i32) -> ()`
    pub(super) fn put_byte(&self) -> u32 {
        self.first + 8
    }

    /// `(value: i64) -> ()`
    pub(super) fn put_varint(&self) -> u32 {
        self.first + 9
    }

    /// `(code point: i32) -> ()`
    pub(super) fn put_char(&self) -> u32 {
        self.first + 10
    }

    /// Bytes of the guest's: `(pointer, length, is text) -> ()`. Only where it has a memory.
    pub(super) fn put_block(&self) -> u32 {
        self.first + 11
    }

    /// Memory of the guest's: `(align, size) -> pointer`. Only where it gives any.
    pub(super) fn allocate(&self) -> u32 {
        self.first + 12
    }

    /// How many there are.
    pub(super) const COUNT: u32 = 13;

    /// All of them, in their order.
    pub(super) fn bodies(&self) -> [Body; Self::COUNT as usize] {
        [
            self.write_fail(),
            self.write_byte(),
            self.write_varint(),
            self.write_length(),
            self.write_take(),
            self.write_is_text(),
            self.write_char(),
            self.write_room(),
            self.write_put_byte(),
            self.write_put_varint(),
            self.write_put_char(),
            self.write_put_block(),
            self.write_allocate(),
        ]
    }
}

/// The type of a function of the guest's that gives memory.
pub(super) const REALLOC: ([ValType; 4], [ValType; 1]) = ([I32; 4], [I32]);

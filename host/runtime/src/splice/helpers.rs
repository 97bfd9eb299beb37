//! The functions that all codecs share. They read and write postcard's primitives in the codec's
//! memory.
//!
//! Reading and writing never trap, and never loop beyond their input. An error is recorded in
//! [`ERROR`]. After it, reading continues at the end of the input, where no bytes are left.

mod input;
mod output;

use wasm_encoder::ValType;
use wasm_encoder::ValType::I32;

use super::body::Body;

/// The address of the next byte to read, and the address after the last one.
pub(super) const POSITION: u32 = 0;
pub(super) const END: u32 = 1;
/// The address where the arguments begin.
pub(super) const START: u32 = 2;
/// The first error, as one of the numbers below; 0 if there is none.
pub(super) const ERROR: u32 = 3;
/// The address of the next byte to write, the address where the result begins, and its largest size
/// in bytes.
pub(super) const OUT: u32 = 4;
pub(super) const OUT_START: u32 = 5;
pub(super) const LIMIT: u32 = 6;
/// Which of the guest's functions allocates for the method that is called. Toolchains may give each
/// method its own.
pub(super) const ALLOCATOR: u32 = 7;
/// The number of globals.
pub(super) const GLOBALS: u32 = 8;

/// The arguments do not fit the types.
pub(crate) const MALFORMED: i32 = 1;
/// The result is larger than its limit.
pub(crate) const TOO_LARGE: i32 = 2;
/// The guest's result breaks the canonical ABI: a pointer or length is out of bounds of its memory,
/// a pointer is not aligned, a case does not exist, a string is not UTF-8, or a number is not a
/// character.
pub(crate) const OUT_OF_BOUNDS: i32 = 3;
pub(crate) const NOT_ALIGNED: i32 = 5;
pub(crate) const NO_CASE: i32 = 6;
pub(crate) const NO_TEXT: i32 = 7;
pub(crate) const NO_CHAR: i32 = 8;
/// The arguments would take more memory than a memory can hold.
pub(crate) const ARGUMENTS_TOO_LARGE: i32 = 4;

/// The size of a page of memory, in bytes.
const PAGE: i32 = 65536;

/// The indices of the helpers among a codec's functions.
#[derive(Clone, Copy)]
pub(super) struct Helpers {
    /// The index of the first helper. The others follow.
    first: u32,
    /// The indices of the memories.
    pub(super) own: u32,
    pub(super) guest: Option<u32>,
    /// How many functions of the guest allocate. They are the first functions of the module.
    reallocs: u32,
}

impl Helpers {
    pub(super) fn new(first: u32, own: u32, guest: Option<u32>, reallocs: u32) -> Self {
        Helpers { first, own, guest, reallocs }
    }

    /// Records that the input is malformed: `() -> ()`.
    pub(super) fn fail(&self) -> u32 {
        self.first
    }

    /// Reads a byte: `() -> i32`.
    pub(super) fn byte(&self) -> u32 {
        self.first + 1
    }

    /// Reads a varint of at most `bits` bits: `(bits: i32) -> i64`.
    pub(super) fn varint(&self) -> u32 {
        self.first + 2
    }

    /// Reads a length. It fails if the length is larger than the number of bytes that follow:
    /// `() -> i32`.
    pub(super) fn length(&self) -> u32 {
        self.first + 3
    }

    /// Skips `count` bytes, and returns a pointer to them: `(count: i32) -> pointer`.
    pub(super) fn take(&self) -> u32 {
        self.first + 4
    }

    /// Whether bytes of the codec's memory are UTF-8: `(pointer, length) -> i32`.
    pub(super) fn is_text(&self) -> u32 {
        self.first + 5
    }

    /// Reads a character: `() -> i32`.
    pub(super) fn char(&self) -> u32 {
        self.first + 6
    }

    /// Makes room for `count` bytes of the result. Returns 1 if there is room, else 0:
    /// `(count: i32) -> i32`.
    pub(super) fn room(&self) -> u32 {
        self.first + 7
    }

    /// Writes a byte: `(byte: i32) -> ()`.
    pub(super) fn put_byte(&self) -> u32 {
        self.first + 8
    }

    /// Writes a varint: `(value: i64) -> ()`.
    pub(super) fn put_varint(&self) -> u32 {
        self.first + 9
    }

    /// Writes a character: `(code point: i32) -> ()`.
    pub(super) fn put_char(&self) -> u32 {
        self.first + 10
    }

    /// Writes bytes from the guest's memory: `(pointer, length, is text) -> ()`. Only if the guest
    /// has a memory.
    pub(super) fn put_block(&self) -> u32 {
        self.first + 11
    }

    /// Allocates memory in the guest: `(align, size) -> pointer`. Only if the guest has a
    /// `realloc`.
    pub(super) fn allocate(&self) -> u32 {
        self.first + 12
    }

    /// The number of helpers.
    pub(super) const COUNT: u32 = 13;

    /// All helpers, in the order of their indices.
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

/// The core type of the guest's `realloc`.
pub(super) const REALLOC: ([ValType; 4], [ValType; 1]) = ([I32; 4], [I32]);

//! What all codecs have: reading and writing postcard's primitives in their own memory.
//!
//! Reading and writing never trap and never loop beyond their input: what goes wrong is noted in
//! [`ERROR`], and reading goes on at the end of the input, where there is nothing.

use wasm_encoder::ValType::{I32, I64};
use wasm_encoder::{BlockType, ValType};

use super::body::{Body, at};

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

    fn write_fail(&self) -> Body {
        let mut body = Body::new(&[], &[]);
        body.write()
            // The first thing that went wrong is what is said.
            .global_get(ERROR)
            .i32_eqz()
            .if_(BlockType::Empty)
            .i32_const(MALFORMED)
            .global_set(ERROR)
            .end()
            .global_get(END)
            .global_set(POSITION);
        body
    }

    fn write_byte(&self) -> Body {
        let mut body = Body::new(&[], &[I32]);
        body.write()
            .global_get(POSITION)
            .global_get(END)
            .i32_ge_u()
            .if_(BlockType::Empty)
            .call(self.fail())
            .i32_const(0)
            .return_()
            .end()
            .global_get(POSITION)
            .i32_load8_u(at(self.own, 0))
            .global_get(POSITION)
            .i32_const(1)
            .i32_add()
            .global_set(POSITION);
        body
    }

    fn write_varint(&self) -> Body {
        let mut body = Body::new(&[I32], &[I64]);
        let (bits, shift, byte) = (0, body.local(I32), body.local(I32));
        let (value, part) = (body.local(I64), body.local(I64));
        body.write()
            .loop_(BlockType::Empty)
            .call(self.byte())
            .local_tee(byte)
            .i32_const(0x7f)
            .i32_and()
            .i64_extend_i32_u()
            .local_set(part)
            // What does not fit the last few bits.
            .local_get(shift)
            .i32_const(7)
            .i32_add()
            .local_get(bits)
            .i32_gt_u()
            .if_(BlockType::Empty)
            .local_get(part)
            .local_get(bits)
            .local_get(shift)
            .i32_sub()
            .i64_extend_i32_u()
            .i64_shr_u()
            .i64_eqz()
            .i32_eqz()
            .if_(BlockType::Empty)
            .call(self.fail())
            .i64_const(0)
            .return_()
            .end()
            .end()
            .local_get(value)
            .local_get(part)
            .local_get(shift)
            .i64_extend_i32_u()
            .i64_shl()
            .i64_or()
            .local_set(value)
            .local_get(byte)
            .i32_const(0x80)
            .i32_and()
            .i32_eqz()
            .if_(BlockType::Empty)
            .local_get(value)
            .return_()
            .end()
            .local_get(shift)
            .i32_const(7)
            .i32_add()
            .local_tee(shift)
            .local_get(bits)
            .i32_lt_u()
            .br_if(0)
            .end()
            .call(self.fail())
            .i64_const(0);
        body
    }

    fn write_length(&self) -> Body {
        let mut body = Body::new(&[], &[I32]);
        let value = body.local(I64);
        body.write()
            .i32_const(64)
            .call(self.varint())
            .local_tee(value)
            .global_get(END)
            .global_get(POSITION)
            .i32_sub()
            .i64_extend_i32_u()
            .i64_gt_u()
            .if_(BlockType::Empty)
            .call(self.fail())
            .i32_const(0)
            .return_()
            .end()
            .local_get(value)
            .i32_wrap_i64();
        body
    }

    fn write_take(&self) -> Body {
        let mut body = Body::new(&[I32], &[I32]);
        body.write()
            .local_get(0)
            .global_get(END)
            .global_get(POSITION)
            .i32_sub()
            .i32_gt_u()
            .if_(BlockType::Empty)
            .call(self.fail())
            // Some place that can be read.
            .i32_const(0)
            .return_()
            .end()
            .global_get(POSITION)
            .global_get(POSITION)
            .local_get(0)
            .i32_add()
            .global_set(POSITION);
        body
    }

    /// Unicode's table of well-formed sequences (The Unicode Standard, table 3-7).
    fn write_is_text(&self) -> Body {
        let mut body = Body::new(&[I32, I32], &[I32]);
        let (at_, end, first, more) = (0, 1, body.local(I32), body.local(I32));
        let (low, high) = (body.local(I32), body.local(I32));
        let own = self.own;
        body.write().local_get(0).local_get(1).i32_add().local_set(end);
        // The blocks, from the outside: `0` of the loop goes on, `1` is not text.
        body.write().block(BlockType::Empty).loop_(BlockType::Empty);
        body.write()
            .local_get(at_)
            .local_get(end)
            .i32_ge_u()
            .if_(BlockType::Empty)
            .i32_const(1)
            .return_()
            .end();
        // Eight at once, where they are ASCII.
        body.write()
            .local_get(end)
            .local_get(at_)
            .i32_sub()
            .i32_const(8)
            .i32_ge_u()
            .if_(BlockType::Empty)
            .local_get(at_)
            .i64_load(at(own, 0))
            .i64_const(0x8080_8080_8080_8080_u64.cast_signed())
            .i64_and()
            .i64_eqz()
            .if_(BlockType::Empty)
            .local_get(at_)
            .i32_const(8)
            .i32_add()
            .local_set(at_)
            .br(2)
            .end()
            .end();
        body.write()
            .local_get(at_)
            .i32_load8_u(at(own, 0))
            .local_tee(first)
            .i32_const(0x80)
            .i32_lt_u()
            .if_(BlockType::Empty)
            .local_get(at_)
            .i32_const(1)
            .i32_add()
            .local_set(at_)
            .br(1)
            .end();
        body.write().local_get(first).i32_const(0xc2).i32_lt_u().br_if(1);
        body.write().local_get(first).i32_const(0xf4).i32_gt_u().br_if(1);
        // How many bytes follow, and what the second may be.
        body.write().i32_const(0x80).local_set(low).i32_const(0xbf).local_set(high);
        body.write()
            .local_get(first)
            .i32_const(0xe0)
            .i32_ge_u()
            .local_get(first)
            .i32_const(0xf0)
            .i32_ge_u()
            .i32_add()
            .i32_const(1)
            .i32_add()
            .local_set(more);
        for (byte, local, bound) in
            [(0xe0, low, 0xa0), (0xed, high, 0x9f), (0xf0, low, 0x90), (0xf4, high, 0x8f)]
        {
            body.write()
                .local_get(first)
                .i32_const(byte)
                .i32_eq()
                .if_(BlockType::Empty)
                .i32_const(bound)
                .local_set(local)
                .end();
        }
        body.write().local_get(end).local_get(at_).i32_sub().local_get(more).i32_le_u().br_if(1);
        body.write()
            .local_get(at_)
            .i32_load8_u(at(own, 1))
            .local_get(low)
            .i32_lt_u()
            .br_if(1)
            .local_get(at_)
            .i32_load8_u(at(own, 1))
            .local_get(high)
            .i32_gt_u()
            .br_if(1);
        for follower in [2, 3] {
            body.write()
                .local_get(more)
                .i32_const(follower)
                .i32_ge_u()
                .if_(BlockType::Empty)
                .local_get(at_)
                .i32_load8_u(at(own, follower.cast_unsigned()))
                .i32_const(0xc0)
                .i32_and()
                .i32_const(0x80)
                .i32_ne()
                .br_if(2)
                .end();
        }
        body.write()
            .local_get(at_)
            .local_get(more)
            .i32_add()
            .i32_const(1)
            .i32_add()
            .local_set(at_)
            .br(0)
            .end()
            .end()
            .i32_const(0);
        body
    }

    fn write_char(&self) -> Body {
        let mut body = Body::new(&[], &[I32]);
        let (len, start, first) = (body.local(I32), body.local(I32), body.local(I32));
        let own = self.own;
        body.write()
            .call(self.length())
            .local_tee(len)
            .call(self.take())
            .local_set(start)
            .global_get(ERROR)
            .if_(BlockType::Empty)
            .i32_const(0)
            .return_()
            .end();
        // One character is one to four bytes, as its first one says.
        body.write()
            .block(BlockType::Empty)
            .local_get(len)
            .i32_eqz()
            .br_if(0)
            .local_get(start)
            .local_get(len)
            .call(self.is_text())
            .i32_eqz()
            .br_if(0)
            .local_get(start)
            .i32_load8_u(at(own, 0))
            .local_tee(first)
            .i32_const(0x80)
            .i32_ge_u()
            .local_get(first)
            .i32_const(0xe0)
            .i32_ge_u()
            .i32_add()
            .local_get(first)
            .i32_const(0xf0)
            .i32_ge_u()
            .i32_add()
            .i32_const(1)
            .i32_add()
            .local_get(len)
            .i32_ne()
            .br_if(0);
        let follower = |body: &mut Body, place: u32, shift: i32| {
            body.write()
                .local_get(start)
                .i32_load8_u(at(own, place))
                .i32_const(0x3f)
                .i32_and()
                .i32_const(shift)
                .i32_shl();
        };
        body.write()
            .local_get(len)
            .i32_const(1)
            .i32_eq()
            .if_(BlockType::Empty)
            .local_get(first)
            .return_()
            .end();
        for (bytes, mask) in [(2u32, 0x1f), (3, 0x0f), (4, 0x07)] {
            let last = bytes == 4;
            if !last {
                body.write()
                    .local_get(len)
                    .i32_const(bytes.cast_signed())
                    .i32_eq()
                    .if_(BlockType::Empty);
            }
            body.write()
                .local_get(first)
                .i32_const(mask)
                .i32_and()
                .i32_const(6 * (bytes.cast_signed() - 1))
                .i32_shl();
            for place in 1..bytes {
                follower(&mut body, place, 6 * (bytes - 1 - place).cast_signed());
                body.write().i32_or();
            }
            body.write().return_();
            if !last {
                body.write().end();
            }
        }
        body.write().end().call(self.fail()).i32_const(0);
        body
    }

    fn write_room(&self) -> Body {
        let mut body = Body::new(&[I32], &[I32]);
        let (count, wanted) = (0, body.local(I64));
        let own = self.own;
        body.write()
            .global_get(OUT)
            .i64_extend_i32_u()
            .local_get(count)
            .i64_extend_i32_u()
            .i64_add()
            .local_tee(wanted)
            .memory_size(own)
            .i64_extend_i32_u()
            .i64_const(PAGE.into())
            .i64_mul()
            .i64_le_u()
            .if_(BlockType::Empty)
            .i32_const(1)
            .return_()
            .end();
        body.write()
            .block(BlockType::Empty)
            // More than the result may have.
            .local_get(wanted)
            .global_get(OUT_START)
            .i64_extend_i32_u()
            .i64_sub()
            .global_get(LIMIT)
            .i64_extend_i32_u()
            .i64_const(PAGE.into())
            .i64_add()
            .i64_gt_u()
            .br_if(0);
        // As many pages as are lacking, and half as many again, so that it grows seldom.
        for half in [true, false] {
            body.write().local_get(wanted);
            if half {
                body.write().local_get(wanted).i64_const(1).i64_shr_u().i64_add();
            }
            body.write()
                .i64_const((PAGE - 1).into())
                .i64_add()
                .i64_const(16)
                .i64_shr_u()
                .i32_wrap_i64()
                .memory_size(own)
                .i32_sub()
                .memory_grow(own)
                .i32_const(-1)
                .i32_ne()
                .if_(BlockType::Empty)
                .i32_const(1)
                .return_()
                .end();
        }
        body.write()
            .end()
            .global_get(ERROR)
            .i32_eqz()
            .if_(BlockType::Empty)
            .i32_const(TOO_LARGE)
            .global_set(ERROR)
            .end()
            // What comes now is written over what nobody will read.
            .global_get(OUT_START)
            .global_set(OUT)
            .i32_const(0);
        body
    }

    /// Goes on only if there is room for so many bytes.
    fn need(&self, body: &mut Body, count: i32) {
        body.write()
            .i32_const(count)
            .call(self.room())
            .i32_eqz()
            .if_(BlockType::Empty)
            .return_()
            .end();
    }

    /// Moves on behind what was written.
    fn advance(body: &mut Body, count: i32) {
        body.write().global_get(OUT).i32_const(count).i32_add().global_set(OUT);
    }

    fn write_put_byte(&self) -> Body {
        let mut body = Body::new(&[I32], &[]);
        self.need(&mut body, 1);
        body.write().global_get(OUT).local_get(0).i32_store8(at(self.own, 0));
        Self::advance(&mut body, 1);
        body
    }

    fn write_put_varint(&self) -> Body {
        let mut body = Body::new(&[I64], &[]);
        self.need(&mut body, 10);
        body.write()
            .block(BlockType::Empty)
            .loop_(BlockType::Empty)
            .local_get(0)
            .i64_const(0x80)
            .i64_lt_u()
            .br_if(1)
            .global_get(OUT)
            .local_get(0)
            .i32_wrap_i64()
            .i32_const(0x80)
            .i32_or()
            .i32_store8(at(self.own, 0));
        Self::advance(&mut body, 1);
        body.write()
            .local_get(0)
            .i64_const(7)
            .i64_shr_u()
            .local_set(0)
            .br(0)
            .end()
            .end()
            .global_get(OUT)
            .local_get(0)
            .i32_wrap_i64()
            .i32_store8(at(self.own, 0));
        Self::advance(&mut body, 1);
        body
    }

    fn write_put_char(&self) -> Body {
        let mut body = Body::new(&[I32], &[]);
        let point = 0;
        self.need(&mut body, 5);
        // No character: beyond the last, or half of a pair.
        body.write()
            .local_get(point)
            .i32_const(0x11_0000)
            .i32_ge_u()
            .local_get(point)
            .i32_const(0xd800)
            .i32_sub()
            .i32_const(0x800)
            .i32_lt_u()
            .i32_or()
            .if_(BlockType::Empty)
            .i32_const(NO_CHAR)
            .global_set(ERROR)
            .return_()
            .end();
        for (below, bytes, lead) in
            [(0x80, 1, 0), (0x800, 2, 0xc0), (0x1_0000, 3, 0xe0), (0x11_0000, 4, 0xf0)]
        {
            body.write()
                .local_get(point)
                .i32_const(below)
                .i32_lt_u()
                .if_(BlockType::Empty)
                .global_get(OUT)
                .i32_const(bytes)
                .i32_store8(at(self.own, 0));
            for place in 0..bytes {
                let shift = 6 * (bytes - 1 - place);
                body.write().global_get(OUT).local_get(point).i32_const(shift).i32_shr_u();
                if place > 0 {
                    body.write().i32_const(0x3f).i32_and();
                }
                let mark = if place == 0 { lead } else { 0x80 };
                body.write()
                    .i32_const(mark)
                    .i32_or()
                    .i32_store8(at(self.own, 1 + place.cast_unsigned()));
            }
            Self::advance(&mut body, 1 + bytes);
            body.write().return_().end();
        }
        body
    }

    /// Whether so many bytes at a pointer are within the guest's memory: pushes 1 if they are not.
    pub(super) fn is_outside(body: &mut Body, guest: u32, pointer: u32, bytes: u32) {
        body.write()
            .local_get(pointer)
            .i64_extend_i32_u()
            .local_get(bytes)
            .i64_add()
            .memory_size(guest)
            .i64_extend_i32_u()
            .i64_const(PAGE.into())
            .i64_mul()
            .i64_gt_u();
    }

    fn write_put_block(&self) -> Body {
        let mut body = Body::new(&[I32, I32, I32], &[]);
        let Some(guest) = self.guest else { return body };
        let (pointer, len, is_text, bytes) = (0, 1, 2, body.local(I64));
        body.write().local_get(len).i64_extend_i32_u().local_set(bytes);
        Self::is_outside(&mut body, guest, pointer, bytes);
        body.write()
            .if_(BlockType::Empty)
            .i32_const(OUT_OF_BOUNDS)
            .global_set(ERROR)
            .return_()
            .end()
            .local_get(bytes)
            .call(self.put_varint())
            .local_get(len)
            .call(self.room())
            .i32_eqz()
            .if_(BlockType::Empty)
            .return_()
            .end()
            .global_get(OUT)
            .local_get(pointer)
            .local_get(len)
            .memory_copy(self.own, guest)
            .local_get(is_text)
            .if_(BlockType::Empty)
            .global_get(OUT)
            .local_get(len)
            .call(self.is_text())
            .i32_eqz()
            .if_(BlockType::Empty)
            .i32_const(NO_TEXT)
            .global_set(ERROR)
            .end()
            .end()
            .global_get(OUT)
            .local_get(len)
            .i32_add()
            .global_set(OUT);
        body
    }

    fn write_allocate(&self) -> Body {
        let mut body = Body::new(&[I32, I32], &[I32]);
        let (Some(guest), Some(realloc)) = (self.guest, self.realloc) else {
            body.write().unreachable();
            return body;
        };
        let (align, size, pointer, bytes) = (0, 1, body.local(I32), body.local(I64));
        body.write()
            .i32_const(0)
            .i32_const(0)
            .local_get(align)
            .local_get(size)
            .call(realloc)
            .local_set(pointer)
            .local_get(size)
            .i64_extend_i32_u()
            .local_set(bytes);
        Self::is_outside(&mut body, guest, pointer, bytes);
        body.write()
            .local_get(pointer)
            .local_get(align)
            .i32_const(1)
            .i32_sub()
            .i32_and()
            .i32_or()
            .if_(BlockType::Empty)
            // As wasmtime does with such a guest.
            .unreachable()
            .end()
            .local_get(pointer);
        body
    }
}

/// The type of a function of the guest's that gives memory.
pub(super) const REALLOC: ([ValType; 4], [ValType; 1]) = ([I32; 4], [I32]);

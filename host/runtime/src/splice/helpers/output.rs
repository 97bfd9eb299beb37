//! The helpers that write, and those that access the guest's memory.

use wasm_encoder::BlockType;
use wasm_encoder::ValType::{I32, I64};

use super::{
    ALLOCATOR, ERROR, Helpers, LIMIT, NO_CHAR, NO_TEXT, OUT, OUT_OF_BOUNDS, OUT_START, PAGE,
    TOO_LARGE,
};
use crate::splice::body::{Body, at};

impl Helpers {
    pub(super) fn write_room(&self) -> Body {
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
            // Do not grow for more than the limit and one page. The entry checks the exact limit.
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
        // Grow to half more than is needed, so that the memory grows rarely. If that fails, grow
        // only to what is needed.
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
            // The result is discarded, so later bytes may overwrite it.
            .global_get(OUT_START)
            .global_set(OUT)
            .i32_const(0);
        body
    }

    /// Returns from the function if there is no room for `count` bytes.
    fn need(&self, body: &mut Body, count: i32) {
        body.write()
            .i32_const(count)
            .call(self.room())
            .i32_eqz()
            .if_(BlockType::Empty)
            .return_()
            .end();
    }

    /// Moves the output position by `count` bytes.
    fn advance(body: &mut Body, count: i32) {
        body.write().global_get(OUT).i32_const(count).i32_add().global_set(OUT);
    }

    pub(super) fn write_put_byte(&self) -> Body {
        let mut body = Body::new(&[I32], &[]);
        self.need(&mut body, 1);
        body.write().global_get(OUT).local_get(0).i32_store8(at(self.own, 0));
        Self::advance(&mut body, 1);
        body
    }

    pub(super) fn write_put_varint(&self) -> Body {
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

    pub(super) fn write_put_char(&self) -> Body {
        let mut body = Body::new(&[I32], &[]);
        let point = 0;
        self.need(&mut body, 5);
        // Not a character: beyond the last code point, or a surrogate.
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

    /// Pushes 1 if `bytes` bytes at a pointer are not all within the guest's memory, else 0.
    pub(in crate::splice) fn is_outside(body: &mut Body, guest: u32, pointer: u32, bytes: u32) {
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

    pub(super) fn write_put_block(&self) -> Body {
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

    pub(super) fn write_allocate(&self) -> Body {
        let mut body = Body::new(&[I32, I32], &[I32]);
        let (Some(guest), 1..) = (self.guest, self.reallocs) else {
            body.write().unreachable();
            return body;
        };
        let (align, size, pointer, bytes) = (0, 1, body.local(I32), body.local(I64));
        let count = self.reallocs;
        for _ in 0..=count {
            body.write().block(BlockType::Empty);
        }
        body.write().global_get(ALLOCATOR).br_table(0..count, count);
        for realloc in 0..count {
            body.write()
                .end()
                .i32_const(0)
                .i32_const(0)
                .local_get(align)
                .local_get(size)
                .call(realloc)
                .local_set(pointer)
                .br(count - realloc - 1);
        }
        body.write().end().local_get(size).i64_extend_i32_u().local_set(bytes);
        Self::is_outside(&mut body, guest, pointer, bytes);
        body.write()
            .local_get(pointer)
            .local_get(align)
            .i32_const(1)
            .i32_sub()
            .i32_and()
            .i32_or()
            .if_(BlockType::Empty)
            // wasmtime also traps for such a guest.
            .unreachable()
            .end()
            .local_get(pointer);
        body
    }
}

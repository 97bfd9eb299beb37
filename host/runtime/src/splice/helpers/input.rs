//! The helpers that read.

use wasm_encoder::BlockType;
use wasm_encoder::ValType::{I32, I64};

use super::{END, ERROR, Helpers, MALFORMED, POSITION};
use crate::splice::body::{Body, at};

impl Helpers {
    pub(super) fn write_fail(&self) -> Body {
        let mut body = Body::new(&[], &[]);
        body.write()
            // Only the first error is reported.
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

    pub(super) fn write_byte(&self) -> Body {
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

    pub(super) fn write_varint(&self) -> Body {
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
            // The last byte must not have more bits than fit.
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

    pub(super) fn write_length(&self) -> Body {
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

    pub(super) fn write_take(&self) -> Body {
        let mut body = Body::new(&[I32], &[I32]);
        body.write()
            .local_get(0)
            .global_get(END)
            .global_get(POSITION)
            .i32_sub()
            .i32_gt_u()
            .if_(BlockType::Empty)
            .call(self.fail())
            // An address that can be read.
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
    pub(super) fn write_is_text(&self) -> Body {
        let mut body = Body::new(&[I32, I32], &[I32]);
        let (at_, end, first, more) = (0, 1, body.local(I32), body.local(I32));
        let (low, high) = (body.local(I32), body.local(I32));
        let own = self.own;
        body.write().local_get(0).local_get(1).i32_add().local_set(end);
        // Inside the loop, branch 0 continues, and branch 1 leaves: the bytes are not UTF-8.
        body.write().block(BlockType::Empty).loop_(BlockType::Empty);
        body.write()
            .local_get(at_)
            .local_get(end)
            .i32_ge_u()
            .if_(BlockType::Empty)
            .i32_const(1)
            .return_()
            .end();
        // ASCII bytes are skipped many at once.
        for step in [32, 8] {
            body.write()
                .local_get(end)
                .local_get(at_)
                .i32_sub()
                .i32_const(step)
                .i32_ge_u()
                .if_(BlockType::Empty)
                .local_get(at_)
                .i64_load(at(own, 0));
            for offset in (8..step.cast_unsigned()).step_by(8) {
                body.write().local_get(at_).i64_load(at(own, offset)).i64_or();
            }
            body.write()
                .i64_const(0x8080_8080_8080_8080_u64.cast_signed())
                .i64_and()
                .i64_eqz()
                .if_(BlockType::Empty)
                .local_get(at_)
                .i32_const(step)
                .i32_add()
                .local_set(at_)
                .br(2)
                .end()
                .end();
        }
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
        // How many bytes follow, and the range of the second byte.
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

    pub(super) fn write_char(&self) -> Body {
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
        // A character has one to four bytes. Its first byte says how many.
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
}

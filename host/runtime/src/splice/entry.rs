//! The two functions that the host uses: the one that it calls, and the one that provides room for
//! the arguments.

use wasm_encoder::BlockType;
use wasm_encoder::ValType::I32;

use super::body::{Body, at, index};
use super::codec::{ARGUMENTS, Codec, HANDED_OVER};
use super::helpers;

impl Codec<'_> {
    /// `(method, limit, pointer, length) -> pointer`. The returned pointer leads to the status, and
    /// the address and length of the result.
    pub(super) fn call(&self, entries: &[u32]) -> Body {
        let mut body = Body::new(&[I32; 4], &[I32]);
        let (method, limit, pointer, length) = (0, 1, 2, 3);
        body.write()
            .local_get(pointer)
            .global_set(helpers::POSITION)
            .local_get(pointer)
            .global_set(helpers::START)
            .local_get(pointer)
            .local_get(length)
            .i32_add()
            .global_set(helpers::END)
            .i32_const(0)
            .global_set(helpers::ERROR)
            .local_get(limit)
            .global_set(helpers::LIMIT)
            .global_get(helpers::END)
            .global_set(helpers::OUT)
            .global_get(helpers::END)
            .global_set(helpers::OUT_START);
        let count = index(entries.len());
        for _ in 0..=count {
            body.write().block(BlockType::Empty);
        }
        body.write().local_get(method).br_table(0..count, count);
        for (index, entry) in (0u32..).zip(entries) {
            body.write().end().call(*entry).br(count - index - 1);
        }
        body.write().end();
        // `room` does not check the exact limit of the result, so check it here.
        body.write()
            .global_get(helpers::ERROR)
            .i32_eqz()
            .global_get(helpers::OUT)
            .global_get(helpers::OUT_START)
            .i32_sub()
            .global_get(helpers::LIMIT)
            .i32_gt_u()
            .i32_and()
            .if_(BlockType::Empty)
            .i32_const(helpers::TOO_LARGE)
            .global_set(helpers::ERROR)
            .end();
        let own = self.helpers.own;
        let to = |offset| at(own, HANDED_OVER + offset);
        body.write()
            .i32_const(0)
            .global_get(helpers::ERROR)
            .i32_store(to(0))
            .i32_const(0)
            .global_get(helpers::OUT_START)
            .i32_store(to(4))
            .i32_const(0)
            .global_get(helpers::OUT)
            .global_get(helpers::OUT_START)
            .i32_sub()
            .i32_const(0)
            .global_get(helpers::ERROR)
            .i32_eqz()
            .select()
            .i32_store(to(8))
            .i32_const(HANDED_OVER.cast_signed());
        body
    }

    /// Provides room for the arguments. It is always at the same address, because each call has
    /// only one block of arguments.
    pub(super) fn realloc(&self) -> Body {
        let mut body = Body::new(&[I32; 4], &[I32]);
        let (size, pages, own) = (3, body.local(I32), self.helpers.own);
        body.write()
            // The number of pages that are missing for `size` bytes.
            .local_get(size)
            .i64_extend_i32_u()
            .i64_const((ARGUMENTS + 0xffff).into())
            .i64_add()
            .i64_const(16)
            .i64_shr_u()
            .i32_wrap_i64()
            .memory_size(own)
            .i32_sub()
            .local_tee(pages)
            .i32_const(0)
            .i32_gt_s()
            .if_(BlockType::Empty)
            .local_get(pages)
            .memory_grow(own)
            .i32_const(-1)
            .i32_eq()
            .if_(BlockType::Empty)
            .unreachable()
            .end()
            .end()
            .i32_const(ARGUMENTS.cast_signed());
        body
    }
}

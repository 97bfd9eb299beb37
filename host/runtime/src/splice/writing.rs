//! Generates code that lifts values according to the canonical ABI and writes them into the result
//! as postcard. The code checks everything that the guest returns, because a guest may lie.

use wasm_encoder::BlockType;
use wasm_encoder::ValType::{I32, I64};
use wharf_schema::{Type, TypeId};

use super::body::{Body, at, index};
use super::codec::{Codec, Task};
use super::helpers::{ERROR, Helpers, NO_CASE, NOT_ALIGNED, OUT, OUT_OF_BOUNDS};
use super::layout::discriminant_size;

impl Codec<'_> {
    /// Writes a value that is stored at an offset from the pointer in the local `from`.
    pub(super) fn write(
        &mut self,
        body: &mut Body,
        service: usize,
        ty: TypeId,
        memory: u32,
        from: u32,
        offset: u32,
    ) -> Option<()> {
        let helpers = self.helpers;
        let types = self.layouts.get(service)?.types();
        let place = at(memory, offset);
        match &types[ty] {
            Type::Bool => {
                body.write()
                    .local_get(from)
                    .i32_load8_u(place)
                    .i32_const(0)
                    .i32_ne()
                    .call(helpers.put_byte());
            }
            Type::U8 | Type::S8 => {
                body.write().local_get(from).i32_load8_u(place).call(helpers.put_byte());
            }
            Type::U16 => {
                body.write().local_get(from).i64_load16_u(place).call(helpers.put_varint());
            }
            Type::U32 => {
                body.write().local_get(from).i64_load32_u(place).call(helpers.put_varint());
            }
            Type::U64 => {
                body.write().local_get(from).i64_load(place).call(helpers.put_varint());
            }
            Type::S16 => {
                body.write().local_get(from).i64_load16_s(place);
                self.put_signed(body);
            }
            Type::S32 => {
                body.write().local_get(from).i64_load32_s(place);
                self.put_signed(body);
            }
            Type::S64 => {
                body.write().local_get(from).i64_load(place);
                self.put_signed(body);
            }
            Type::F32 | Type::F64 => {
                let is_long = types[ty] == Type::F64;
                let bytes = if is_long { 8 } else { 4 };
                body.write().i32_const(bytes).call(helpers.room()).if_(BlockType::Empty);
                body.write().global_get(OUT).local_get(from);
                if is_long {
                    body.write().i64_load(place).i64_store(at(helpers.own, 0));
                } else {
                    body.write().i32_load(place).i32_store(at(helpers.own, 0));
                }
                body.write().global_get(OUT).i32_const(bytes).i32_add().global_set(OUT).end();
            }
            Type::Char => {
                body.write().local_get(from).i32_load(place).call(helpers.put_char());
            }
            Type::Flags(names) => {
                let count = index(names.len());
                let size = self.layouts.get_mut(service)?.shape(ty)?.size;
                body.load_small(memory, from, offset, size);
                if count < 32 {
                    // Ignore the bits without a flag.
                    body.write().i32_const(((1u32 << count) - 1).cast_signed()).i32_and();
                }
                if count <= 8 {
                    body.write().call(helpers.put_byte());
                } else {
                    body.write().i64_extend_i32_u().call(helpers.put_varint());
                }
            }
            Type::String | Type::Bytes => {
                let is_text = i32::from(types[ty] == Type::String);
                body.write()
                    .local_get(from)
                    .i32_load(place)
                    .local_get(from)
                    .i32_load(at(memory, offset + 4))
                    .i32_const(is_text)
                    .call(helpers.put_block());
            }
            _ => {
                let function = self.function(Task::Write(service, ty, memory));
                body.write()
                    .local_get(from)
                    .i32_const(offset.cast_signed())
                    .i32_add()
                    .call(function);
            }
        }
        Some(())
    }

    /// The function that writes values of a type: `(from: i32) -> ()`.
    pub(super) fn writer(&mut self, service: usize, ty: TypeId, memory: u32) -> Option<Body> {
        let mut body = Body::new(&[I32], &[]);
        let (from, helpers) = (0, self.helpers);
        let types = self.layouts.get(service)?.types();
        match &types[ty] {
            Type::List(element) => {
                let guest = helpers.guest?;
                let shape = self.layouts.get_mut(service)?.shape(*element)?;
                let (pointer, len, bytes) = (body.local(I32), body.local(I32), body.local(I64));
                body.write()
                    .local_get(from)
                    .i32_load(at(memory, 0))
                    .local_set(pointer)
                    .local_get(from)
                    .i32_load(at(memory, 4))
                    .local_tee(len)
                    .i64_extend_i32_u()
                    .i64_const(shape.size.into())
                    .i64_mul()
                    .local_set(bytes);
                Helpers::is_outside(&mut body, guest, pointer, bytes);
                body.return_if(ERROR, OUT_OF_BOUNDS);
                body.push_unaligned(pointer, shape.align);
                body.return_if(ERROR, NOT_ALIGNED);
                body.write().local_get(len).i64_extend_i32_u().call(helpers.put_varint());
                self.repeat(&mut body, len, pointer, shape.size, |codec, body| {
                    codec.write(body, service, *element, guest, pointer, 0)
                })?;
            }
            Type::FixedList(element, len) => {
                let shape = self.layouts.get_mut(service)?.shape(*element)?;
                let (left, pointer) = (body.local(I32), body.local(I32));
                body.write().i32_const(len.cast_signed()).local_set(left);
                body.write().local_get(from).local_set(pointer);
                self.repeat(&mut body, left, pointer, shape.size, |codec, body| {
                    codec.write(body, service, *element, memory, pointer, 0)
                })?;
            }
            Type::Tuple(_) | Type::Record(_) => {
                let parts: Vec<TypeId> = types[ty].parts().collect();
                let (offsets, _) =
                    self.layouts.get_mut(service)?.sequence(parts.iter().copied())?;
                for (part, offset) in parts.into_iter().zip(offsets) {
                    self.write(&mut body, service, part, memory, from, offset)?;
                }
            }
            _ => {
                let layouts = self.layouts.get_mut(service)?;
                let cases = layouts.cases(ty);
                let payload = layouts.payload_offset(&cases)?;
                let case = body.local(I32);
                body.load_small(memory, from, 0, discriminant_size(cases.len()));
                body.write().local_tee(case).i32_const(index(cases.len()).cast_signed()).i32_ge_u();
                body.return_if(ERROR, NO_CASE);
                body.write().local_get(case).i64_extend_i32_u().call(helpers.put_varint());
                self.each_case(&mut body, case, &cases, |codec, body, ty| {
                    codec.write(body, service, ty, memory, from, payload)
                })?;
            }
        }
        Some(body)
    }

    /// Writes the number on top of the stack as a zigzag varint.
    fn put_signed(&self, body: &mut Body) {
        let value = body.local(I64);
        body.write()
            .local_tee(value)
            .i64_const(1)
            .i64_shl()
            .local_get(value)
            .i64_const(63)
            .i64_shr_s()
            .i64_xor()
            .call(self.helpers.put_varint());
    }

    /// Stores a result of one core value at [`SCRATCH`](super::codec::SCRATCH), with the layout
    /// that it would have in memory.
    pub(super) fn keep_flat(
        &mut self,
        body: &mut Body,
        service: usize,
        ty: TypeId,
        value: u32,
    ) -> Option<()> {
        let types = self.layouts.get(service)?.types();
        // A record with one field is passed as that field.
        let size = match &types[ty] {
            Type::Tuple(_) | Type::Record(_) | Type::FixedList(..) => {
                let part = types[ty].parts().next()?;
                return self.keep_flat(body, service, part, value);
            }
            Type::Variant(_) | Type::Enum(_) | Type::Option(_) | Type::Result { .. } => {
                let cases = self.layouts.get(service)?.cases(ty).len();
                // Check the whole core value, before it is cut to its size in memory.
                body.write().local_get(value).i32_const(index(cases).cast_signed()).i32_ge_u();
                body.return_if(ERROR, NO_CASE);
                discriminant_size(cases)
            }
            Type::Bool => {
                // Every value except zero is true, even one that does not fit into a byte.
                body.write().local_get(value).i32_const(0).i32_ne().local_set(value);
                1
            }
            _ => self.layouts.get_mut(service)?.shape(ty)?.size,
        };
        let place = at(self.helpers.own, super::codec::SCRATCH);
        let is = |wanted: &[Type]| wanted.contains(&types[ty]);
        let mut code = body.write();
        code.i32_const(0).local_get(value);
        if is(&[Type::F32]) {
            code.f32_store(place);
        } else if is(&[Type::F64]) {
            code.f64_store(place);
        } else {
            match size {
                1 => code.i32_store8(place),
                2 => code.i32_store16(place),
                4 => code.i32_store(place),
                _ => code.i64_store(place),
            };
        }
        Some(())
    }
}

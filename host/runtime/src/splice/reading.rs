//! Generates code that reads postcard from the codec's memory and lowers the values according to
//! the canonical ABI: into a memory, or flat.

use wasm_encoder::ValType::{F32, F64, I32, I64};
use wasm_encoder::{BlockType, ValType};
use wharf_schema::{Type, TypeId};

use super::body::{Body, at, index};
use super::codec::{Codec, Mode, Task};
use super::helpers::{ARGUMENTS_TOO_LARGE, ERROR};
use super::layout::discriminant_size;

impl Codec<'_> {
    /// Reads a value, and stores it at an offset from the pointer in the local `to`.
    pub(super) fn read(
        &mut self,
        body: &mut Body,
        service: usize,
        ty: TypeId,
        mode: Mode,
        to: u32,
        offset: u32,
    ) -> Option<()> {
        let helpers = self.helpers;
        let types = self.layouts.get(service)?.types();
        match &types[ty] {
            Type::Bool => {
                let value = body.local(I32);
                body.write()
                    .call(helpers.byte())
                    .local_tee(value)
                    .i32_const(1)
                    .i32_gt_u()
                    .if_(BlockType::Empty)
                    .call(helpers.fail())
                    .end();
                store(body, mode, to, offset, 1, value);
            }
            Type::U8 | Type::S8 => {
                let value = body.local(I32);
                body.write().call(helpers.byte()).local_set(value);
                store(body, mode, to, offset, 1, value);
            }
            Type::U16 => self.integer(body, mode, to, offset, 2, false),
            Type::S16 => self.integer(body, mode, to, offset, 2, true),
            Type::U32 => self.integer(body, mode, to, offset, 4, false),
            Type::S32 => self.integer(body, mode, to, offset, 4, true),
            Type::U64 => self.integer(body, mode, to, offset, 8, false),
            Type::S64 => self.integer(body, mode, to, offset, 8, true),
            Type::F32 => {
                let (from, value) = (body.local(I32), body.local(I32));
                body.write().i32_const(4).call(helpers.take()).local_set(from);
                body.write().local_get(from).i32_load(at(helpers.own, 0)).local_set(value);
                store(body, mode, to, offset, 4, value);
            }
            Type::F64 => {
                let (from, value) = (body.local(I32), body.local(I64));
                body.write().i32_const(8).call(helpers.take()).local_set(from);
                body.write().local_get(from).i64_load(at(helpers.own, 0)).local_set(value);
                store(body, mode, to, offset, 8, value);
            }
            Type::Char => {
                let value = body.local(I32);
                body.write().call(helpers.char()).local_set(value);
                store(body, mode, to, offset, 4, value);
            }
            Type::Flags(names) => {
                let (count, value) = (index(names.len()), body.local(I32));
                let bits = if count <= 16 { 16 } else { 32 };
                if count <= 8 {
                    body.write().call(helpers.byte()).local_set(value);
                } else {
                    body.write()
                        .i32_const(bits)
                        .call(helpers.varint())
                        .i32_wrap_i64()
                        .local_set(value);
                }
                if count < 32 {
                    body.write()
                        .local_get(value)
                        .i32_const(count.cast_signed())
                        .i32_shr_u()
                        .if_(BlockType::Empty)
                        .call(helpers.fail())
                        .end();
                }
                let size = self.layouts.get_mut(service)?.shape(ty)?.size;
                store(body, mode, to, offset, size, value);
            }
            // All other types have their own functions.
            _ => {
                let function = self.function(Task::Read(service, ty, mode));
                let mut code = body.write();
                match mode {
                    Mode::Check => code.i32_const(0),
                    Mode::Store(_) => code.local_get(to).i32_const(offset.cast_signed()).i32_add(),
                };
                code.call(function);
            }
        }
        Some(())
    }

    /// The function that reads values of a type: `(to: i32) -> ()`.
    pub(super) fn reader(&mut self, service: usize, ty: TypeId, mode: Mode) -> Option<Body> {
        let mut body = Body::new(&[I32], &[]);
        let (to, helpers) = (0, self.helpers);
        let types = self.layouts.get(service)?.types();
        match &types[ty] {
            Type::String | Type::Bytes => {
                let (from, len) = (body.local(I32), body.local(I32));
                body.write()
                    .call(helpers.length())
                    .local_tee(len)
                    .call(helpers.take())
                    .local_set(from);
                let guest = match mode {
                    Mode::Check => {
                        if types[ty] == Type::String {
                            body.write()
                                .local_get(from)
                                .local_get(len)
                                .call(helpers.is_text())
                                .i32_eqz()
                                .if_(BlockType::Empty)
                                .call(helpers.fail())
                                .end();
                        }
                        return Some(body);
                    }
                    Mode::Store(_) => helpers.guest?,
                };
                let pointer = body.local(I32);
                body.write()
                    .i32_const(1)
                    .local_get(len)
                    .call(helpers.allocate())
                    .local_tee(pointer)
                    .local_get(from)
                    .local_get(len)
                    .memory_copy(guest, helpers.own);
                store(&mut body, mode, to, 0, 4, pointer);
                store(&mut body, mode, to, 4, 4, len);
            }
            Type::List(element) => {
                let shape = self.layouts.get_mut(service)?.shape(*element)?;
                let len = body.local(I32);
                body.write().call(helpers.length()).local_set(len);
                let pointer = body.local(I32);
                match mode {
                    Mode::Check => {
                        // The list would take more than a memory can hold.
                        body.write()
                            .local_get(len)
                            .i64_extend_i32_u()
                            .i64_const(shape.size.into())
                            .i64_mul()
                            .i64_const(i32::MAX.into())
                            .i64_gt_u()
                            .if_(BlockType::Empty)
                            .i32_const(ARGUMENTS_TOO_LARGE)
                            .global_set(ERROR)
                            .return_()
                            .end();
                    }
                    Mode::Store(_) => {
                        body.write()
                            .i32_const(shape.align.cast_signed())
                            .local_get(len)
                            .i32_const(shape.size.cast_signed())
                            .i32_mul()
                            .call(helpers.allocate())
                            .local_set(pointer);
                        store(&mut body, mode, to, 0, 4, pointer);
                        store(&mut body, mode, to, 4, 4, len);
                    }
                }
                // The elements of a list are always in the guest's memory, wherever its pointer and
                // length are stored.
                let inner = match mode {
                    Mode::Check => Mode::Check,
                    Mode::Store(_) => Mode::Store(helpers.guest?),
                };
                self.repeat(&mut body, len, pointer, shape.size, |codec, body| {
                    codec.read(body, service, *element, inner, pointer, 0)
                })?;
            }
            Type::FixedList(element, len) => {
                let shape = self.layouts.get_mut(service)?.shape(*element)?;
                let (left, pointer) = (body.local(I32), body.local(I32));
                body.write().i32_const(len.cast_signed()).local_set(left);
                body.write().local_get(to).local_set(pointer);
                self.repeat(&mut body, left, pointer, shape.size, |codec, body| {
                    codec.read(body, service, *element, mode, pointer, 0)
                })?;
            }
            Type::Tuple(_) | Type::Record(_) => {
                let parts: Vec<TypeId> = types[ty].parts().collect();
                let (offsets, _) =
                    self.layouts.get_mut(service)?.sequence(parts.iter().copied())?;
                for (part, offset) in parts.into_iter().zip(offsets) {
                    self.read(&mut body, service, part, mode, to, offset)?;
                }
            }
            _ => {
                let cases = self.layouts.get(service)?.cases(ty);
                let payload = self.layouts.get_mut(service)?.payload_offset(&cases)?;
                let case = body.local(I32);
                // An option is encoded as a bool. All others are encoded as the number of the case.
                if matches!(types[ty], Type::Option(_)) {
                    body.write().call(helpers.byte()).local_set(case);
                } else {
                    body.write()
                        .i32_const(32)
                        .call(helpers.varint())
                        .i32_wrap_i64()
                        .local_set(case);
                }
                body.write()
                    .local_get(case)
                    .i32_const(index(cases.len()).cast_signed())
                    .i32_ge_u()
                    .if_(BlockType::Empty)
                    .call(helpers.fail())
                    .return_()
                    .end();
                store(&mut body, mode, to, 0, discriminant_size(cases.len()), case);
                self.each_case(&mut body, case, &cases, |codec, body, ty| {
                    codec.read(body, service, ty, mode, to, payload)
                })?;
            }
        }
        Some(body)
    }

    fn integer(
        &self,
        body: &mut Body,
        mode: Mode,
        to: u32,
        offset: u32,
        size: u32,
        is_signed: bool,
    ) {
        let value = body.local(I64);
        body.write().i32_const(8 * size.cast_signed()).call(self.helpers.varint()).local_set(value);
        if is_signed {
            // Zigzag: the lowest bit is the sign.
            body.write()
                .local_get(value)
                .i64_const(1)
                .i64_shr_u()
                .i64_const(0)
                .local_get(value)
                .i64_const(1)
                .i64_and()
                .i64_sub()
                .i64_xor()
                .local_set(value);
        }
        if size == 8 {
            return store(body, mode, to, offset, size, value);
        }
        let narrow = body.local(I32);
        body.write().local_get(value).i32_wrap_i64().local_set(narrow);
        store(body, mode, to, offset, size, narrow);
    }

    /// Repeats `once` as often as the local `left` says, until an error occurs. After each time,
    /// the local `pointer` moves by `step`.
    pub(super) fn repeat(
        &mut self,
        body: &mut Body,
        left: u32,
        pointer: u32,
        step: u32,
        once: impl FnOnce(&mut Self, &mut Body) -> Option<()>,
    ) -> Option<()> {
        let count = body.local(I32);
        body.write().local_get(left).local_set(count);
        body.write()
            .block(BlockType::Empty)
            .loop_(BlockType::Empty)
            .local_get(count)
            .i32_eqz()
            .br_if(1)
            .global_get(ERROR)
            .br_if(1);
        once(self, body)?;
        body.write()
            .local_get(pointer)
            .i32_const(step.cast_signed())
            .i32_add()
            .local_set(pointer)
            .local_get(count)
            .i32_const(1)
            .i32_sub()
            .local_set(count)
            .br(0)
            .end()
            .end();
        Some(())
    }

    /// Branches to code for the payload of the case whose number is in the local `case`.
    pub(super) fn each_case(
        &mut self,
        body: &mut Body,
        case: u32,
        cases: &[Option<TypeId>],
        mut with: impl FnMut(&mut Self, &mut Body, TypeId) -> Option<()>,
    ) -> Option<()> {
        for (number, ty) in (0u32..).zip(cases) {
            let Some(ty) = ty else { continue };
            body.write()
                .local_get(case)
                .i32_const(number.cast_signed())
                .i32_eq()
                .if_(BlockType::Empty);
            with(self, body, *ty)?;
            body.write().end();
        }
        Some(())
    }

    /// Pushes a value in the codec's memory as its flat core values.
    pub(super) fn push_flat(
        &mut self,
        body: &mut Body,
        service: usize,
        ty: TypeId,
        from: u32,
        offset: u32,
    ) -> Option<()> {
        let own = self.helpers.own;
        let types = self.layouts.get(service)?.types();
        let from_memory = at(own, offset);
        match &types[ty] {
            Type::Bool | Type::U8 => {
                body.write().local_get(from).i32_load8_u(from_memory);
            }
            Type::S8 => {
                body.write().local_get(from).i32_load8_s(from_memory);
            }
            Type::U16 => {
                body.write().local_get(from).i32_load16_u(from_memory);
            }
            Type::S16 => {
                body.write().local_get(from).i32_load16_s(from_memory);
            }
            Type::U32 | Type::S32 | Type::Char => {
                body.write().local_get(from).i32_load(from_memory);
            }
            Type::U64 | Type::S64 => {
                body.write().local_get(from).i64_load(from_memory);
            }
            Type::F32 => {
                body.write().local_get(from).f32_load(from_memory);
            }
            Type::F64 => {
                body.write().local_get(from).f64_load(from_memory);
            }
            Type::String | Type::Bytes | Type::List(_) => {
                body.write()
                    .local_get(from)
                    .i32_load(from_memory)
                    .local_get(from)
                    .i32_load(at(own, offset + 4));
            }
            Type::Flags(_) => {
                let size = self.layouts.get_mut(service)?.shape(ty)?.size;
                body.load_small(own, from, offset, size);
            }
            Type::FixedList(element, len) => {
                let size = self.layouts.get_mut(service)?.shape(*element)?.size;
                for n in 0..*len {
                    self.push_flat(body, service, *element, from, offset + n * size)?;
                }
            }
            Type::Tuple(_) | Type::Record(_) => {
                let parts: Vec<TypeId> = types[ty].parts().collect();
                let (offsets, _) =
                    self.layouts.get_mut(service)?.sequence(parts.iter().copied())?;
                for (part, place) in parts.into_iter().zip(offsets) {
                    self.push_flat(body, service, part, from, offset + place)?;
                }
            }
            _ => {
                let layouts = self.layouts.get_mut(service)?;
                let cases = layouts.cases(ty);
                let payload = layouts.payload_offset(&cases)?;
                let joined = layouts.flat_payload(&cases);
                let case = body.local(I32);
                body.load_small(own, from, offset, discriminant_size(cases.len()));
                body.write().local_set(case);
                // Core values that a case does not use are zero.
                let places: Vec<u32> = joined.iter().map(|ty| body.local(*ty)).collect();
                for (place, ty) in places.iter().zip(&joined) {
                    zero(body, *ty);
                    body.write().local_set(*place);
                }
                self.each_case(body, case, &cases, |codec, body, ty| {
                    let flat = codec.layouts.get_mut(service)?.flat(ty);
                    codec.push_flat(body, service, ty, from, offset + payload)?;
                    // The last value is on top of the stack.
                    let targets = places.iter().zip(&joined);
                    for (have, (place, want)) in flat.iter().zip(targets).rev() {
                        widen(body, *have, *want);
                        body.write().local_set(*place);
                    }
                    Some(())
                })?;
                body.write().local_get(case);
                for place in places {
                    body.write().local_get(place);
                }
            }
        }
        Some(())
    }
}

/// Stores `size` bytes of the local `value` at an offset from the pointer in the local `to`.
fn store(body: &mut Body, mode: Mode, to: u32, offset: u32, size: u32, value: u32) {
    let Mode::Store(memory) = mode else { return };
    let place = at(memory, offset);
    let mut code = body.write();
    code.local_get(to).local_get(value);
    match size {
        1 => code.i32_store8(place),
        2 => code.i32_store16(place),
        4 => code.i32_store(place),
        _ => code.i64_store(place),
    };
}

fn zero(body: &mut Body, ty: ValType) {
    let mut code = body.write();
    match ty {
        I64 => code.i64_const(0),
        F32 => code.f32_const(0.0.into()),
        F64 => code.f64_const(0.0.into()),
        _ => code.i32_const(0),
    };
}

/// Converts a core value to the type that holds the values of all cases.
fn widen(body: &mut Body, have: ValType, want: ValType) {
    let mut code = body.write();
    match (have, want) {
        (F32, I32) => {
            code.i32_reinterpret_f32();
        }
        (I32, I64) => {
            code.i64_extend_i32_u();
        }
        (F32, I64) => {
            code.i32_reinterpret_f32().i64_extend_i32_u();
        }
        (F64, I64) => {
            code.i64_reinterpret_f64();
        }
        _ => {}
    }
}

//! A function of a codec while it is generated, and shorthands for common instructions.

use wasm_encoder::{BlockType, Function, InstructionSink, MemArg, ValType};

/// A function that is being generated. Locals are added when they are needed.
pub(super) struct Body {
    pub(super) params: Vec<ValType>,
    pub(super) results: Vec<ValType>,
    locals: Vec<ValType>,
    code: Vec<u8>,
}

impl Body {
    pub(super) fn new(params: &[ValType], results: &[ValType]) -> Self {
        Body {
            params: params.to_vec(),
            results: results.to_vec(),
            locals: Vec::new(),
            code: Vec::new(),
        }
    }

    /// Adds a local, and returns its index.
    pub(super) fn local(&mut self, ty: ValType) -> u32 {
        self.locals.push(ty);
        index(self.params.len() + self.locals.len() - 1)
    }

    /// Appends instructions.
    pub(super) fn write(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.code)
    }

    /// Pushes a number of one, two or four bytes, at an offset of the pointer in a local.
    pub(super) fn load_small(&mut self, memory: u32, from: u32, offset: u32, size: u32) {
        let place = at(memory, offset);
        let mut code = self.write();
        code.local_get(from);
        match size {
            1 => code.i32_load8_u(place),
            2 => code.i32_load16_u(place),
            _ => code.i32_load(place),
        };
    }

    /// Pushes a number that is not 0 if a pointer is not a multiple of `align` bytes.
    pub(super) fn push_unaligned(&mut self, pointer: u32, align: u32) {
        self.write().local_get(pointer).i32_const((align - 1).cast_signed()).i32_and();
    }

    /// Returns from the function if the number on top of the stack is not 0, which means that the
    /// guest's result is invalid. `how` is stored in the global `error`.
    pub(super) fn return_if(&mut self, error: u32, how: i32) {
        let mut code = self.write();
        code.if_(BlockType::Empty).i32_const(how).global_set(error).return_().end();
    }

    pub(super) fn finish(mut self) -> Function {
        self.write().end();
        let mut function = Function::new_with_locals_types(self.locals);
        function.raw(self.code);
        function
    }
}

/// An address in a memory, at an offset of a pointer.
pub(super) fn at(memory: u32, offset: u32) -> MemArg {
    // Alignment hints are optional; omit them.
    MemArg { offset: offset.into(), align: 0, memory_index: memory }
}

/// A count as an index. If it is too large, validation of the module fails.
pub(super) fn index(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

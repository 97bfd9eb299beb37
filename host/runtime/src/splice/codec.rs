//! The codec's module: one function for each type and direction, one for each method, and the one
//! that the host calls.

use std::collections::HashMap;

use wasm_encoder::ValType::{I32, I64};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, EntityType, ExportKind, ExportSection, FunctionSection,
    GlobalSection, GlobalType, ImportSection, MemorySection, MemoryType, Module, TypeSection,
    ValType,
};
use wharf_schema::{Signature, TypeId};

use super::body::{Body, index};
use super::helpers::{self, Helpers};
use super::layout::{Layouts, MAX_FLAT_PARAMS, Shape};
use super::outermost::Lift;

/// The address where the codec stores the status, the address and the length of a result.
pub(super) const HANDED_OVER: u32 = 16;

/// The address where parameters are stored before they are passed flat. Results of one core value
/// are stored here too.
pub(super) const SCRATCH: u32 = 64;

/// The most bytes of parameters that are passed flat. This is enough for sixteen of the largest
/// values, and for the padding of variants.
const MAX_SCRATCH: u32 = 4096;

/// The most values that the flat parameters of one method may consist of, with all cases of
/// variants counted; and the most methods of a codec. Both limit the size of the generated code.
const MAX_NODES: u32 = 1000;
pub(super) const MAX_METHODS: usize = 2000;

/// The address of the encoded arguments.
pub(super) const ARGUMENTS: u32 = SCRATCH + MAX_SCRATCH;

/// The most pages of the codec's memory. No memory of a guest may have exactly this maximum, so it
/// identifies the codec's memory when a memory grows.
pub(super) const MAX_PAGES: u64 = 10_007;

/// The same in bytes.
pub(crate) const MAX_BYTES: usize = 10_007 * 65_536;

/// The largest result, in bytes, that fits into the memory beside the arguments.
pub(crate) const MAX_RESULT: usize = 256 * 1024 * 1024;

/// A method that the codec calls.
pub(super) struct CodecMethod<'s> {
    pub(super) signature: &'s Signature,
    pub(super) lift: Lift,
    /// The index of its service, which has its types.
    pub(super) service: usize,
}

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// It is checked, and not stored.
    Check,
    /// It is stored at a pointer into the memory with this index.
    Store(u32),
}

/// What a function of the codec does, by service and type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Task {
    Read(usize, TypeId, Mode),
    Write(usize, TypeId, u32),
}

/// A codec that is being generated.
pub(super) struct Codec<'t> {
    pub(super) layouts: Vec<Layouts<'t>>,
    pub(super) helpers: Helpers,
    types: TypeSection,
    known_types: HashMap<(Vec<ValType>, Vec<ValType>), u32>,
    bodies: Vec<Body>,
    /// The number of imported functions. Their indices come before those of functions with bodies.
    imported: u32,
    tasks: HashMap<Task, u32>,
    to_do: Vec<Task>,
}

/// What a codec's module imports, in the order of its imports.
pub(super) struct Wanted {
    pub(super) memory: Option<u32>,
    /// The functions that allocate: all that the methods use.
    pub(super) reallocs: Vec<u32>,
    /// The functions of the methods, and their post-return functions.
    pub(super) functions: Vec<u32>,
    pub(super) post_returns: Vec<Option<u32>>,
}

/// The names of the imports and exports.
pub(super) const GUEST: &str = "guest";
pub(super) const MEMORY: &str = "memory";
pub(super) const REALLOC: &str = "realloc";
pub(super) const CALL: &str = "call";

pub(super) fn realloc_name(index: usize) -> String {
    format!("{REALLOC}{index}")
}

pub(super) fn function_name(method: usize) -> String {
    format!("f{method}")
}

pub(super) fn post_return_name(method: usize) -> String {
    format!("p{method}")
}

/// Whether a codec can call a method: its types have layouts, and the guest provides the memory
/// that they need.
pub(super) fn supports(layouts: &mut Layouts<'_>, signature: &Signature, lift: &Lift) -> bool {
    let params = || signature.params.iter().map(|param| param.ty);
    let Some((_, shape)) = layouts.sequence(params()) else { return false };
    let spilled = layouts.flat_all(params()).len() > MAX_FLAT_PARAMS;
    // Code for flat parameters is generated for every single value.
    if !spilled && params().fold(0u32, |all, ty| all.saturating_add(layouts.nodes(ty))) > MAX_NODES
    {
        return false;
    }
    let gives_memory = lift.memory.is_some() && lift.realloc.is_some();
    if (spilled || params().any(|ty| layouts.allocates(ty))) && !gives_memory {
        return false;
    }
    let result = signature.result.is_none_or(|ty| {
        layouts.shape(ty).is_some() && (layouts.flat(ty).len() <= 1 || lift.memory.is_some())
    });
    result && (spilled || shape.size <= MAX_SCRATCH)
}

/// Generates the module for these methods. `None` if a codec does not support one of them.
pub(super) fn module(
    layouts: Vec<Layouts<'_>>,
    methods: &[CodecMethod<'_>],
    wanted: &Wanted,
) -> Option<Vec<u8>> {
    let mut imports = ImportSection::new();
    let mut codec = Codec {
        layouts,
        // Imported memories come first.
        helpers: Helpers::new(
            0,
            u32::from(wanted.memory.is_some()),
            wanted.memory.map(|_| 0),
            index(wanted.reallocs.len()),
        ),
        types: TypeSection::new(),
        known_types: HashMap::new(),
        bodies: Vec::new(),
        imported: 0,
        tasks: HashMap::new(),
        to_do: Vec::new(),
    };
    if wanted.memory.is_some() {
        let memory = MemoryType {
            minimum: 0,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        };
        imports.import(GUEST, MEMORY, memory);
    }
    for place in 0..wanted.reallocs.len() {
        let (params, results) = helpers::REALLOC;
        codec.import(&mut imports, &realloc_name(place), &params, &results);
    }
    let mut guests = Vec::new();
    for (index, method) in methods.iter().enumerate() {
        let (params, results) = codec.core_type(method)?;
        guests.push(codec.import(&mut imports, &function_name(index), &params, &results));
    }
    let mut post_returns = Vec::new();
    for (index, method) in methods.iter().enumerate() {
        let (_, results) = codec.core_type(method)?;
        let wanted = wanted.post_returns.get(index).copied().flatten();
        post_returns.push(
            wanted.map(|_| codec.import(&mut imports, &post_return_name(index), &results, &[])),
        );
    }
    let helpers = codec.helpers;
    codec.helpers =
        Helpers::new(codec.imported, helpers.own, helpers.guest, index(wanted.reallocs.len()));
    for body in codec.helpers.bodies() {
        codec.bodies.push(body);
    }
    let mut entries = Vec::new();
    for ((method, guest), post_return) in methods.iter().zip(&guests).zip(&post_returns) {
        let allocator = method
            .lift
            .realloc
            .and_then(|realloc| wanted.reallocs.iter().position(|wanted| *wanted == realloc));
        let body = codec.method(method, *guest, *post_return, allocator)?;
        entries.push(codec.define(body));
    }
    let call = codec.call(&entries);
    let call = codec.define(call);
    let realloc = codec.realloc();
    let realloc = codec.define(realloc);
    while let Some(task) = codec.to_do.pop() {
        let body = match task {
            Task::Read(service, ty, mode) => codec.reader(service, ty, mode)?,
            Task::Write(service, ty, memory) => codec.writer(service, ty, memory)?,
        };
        let index = *codec.tasks.get(&task)? - codec.imported;
        *codec.bodies.get_mut(index as usize)? = body;
    }
    Some(codec.assemble(&imports, call, realloc))
}

impl<'t> Codec<'t> {
    fn assemble(mut self, imports: &ImportSection, call: u32, realloc: u32) -> Vec<u8> {
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        for body in std::mem::take(&mut self.bodies) {
            functions.function(self.type_of(&body.params, &body.results));
            code.function(&body.finish());
        }
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: 1,
            maximum: Some(MAX_PAGES),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut globals = GlobalSection::new();
        for _ in 0..helpers::GLOBALS {
            let ty = GlobalType { val_type: I32, mutable: true, shared: false };
            globals.global(ty, &ConstExpr::i32_const(0));
        }
        let mut exports = ExportSection::new();
        exports.export(MEMORY, ExportKind::Memory, self.helpers.own);
        exports.export(REALLOC, ExportKind::Func, realloc);
        exports.export(CALL, ExportKind::Func, call);
        let mut module = Module::new();
        module
            .section(&self.types)
            .section(imports)
            .section(&functions)
            .section(&memories)
            .section(&globals)
            .section(&exports)
            .section(&code);
        module.finish()
    }

    fn type_of(&mut self, params: &[ValType], results: &[ValType]) -> u32 {
        let next = self.types.len();
        *self.known_types.entry((params.to_vec(), results.to_vec())).or_insert_with(|| {
            self.types.ty().function(params.iter().copied(), results.iter().copied());
            next
        })
    }

    fn import(
        &mut self,
        imports: &mut ImportSection,
        name: &str,
        params: &[ValType],
        results: &[ValType],
    ) -> u32 {
        let ty = self.type_of(params, results);
        imports.import(GUEST, name, EntityType::Function(ty));
        self.imported += 1;
        self.imported - 1
    }

    fn define(&mut self, body: Body) -> u32 {
        self.bodies.push(body);
        self.imported + index(self.bodies.len()) - 1
    }

    /// The index of the function for a task. Its body is generated later.
    pub(super) fn function(&mut self, task: Task) -> u32 {
        if let Some(known) = self.tasks.get(&task) {
            return *known;
        }
        let index = self.define(Body::new(&[I32], &[]));
        self.tasks.insert(task, index);
        self.to_do.push(task);
        index
    }

    /// The core type of a method's function in the guest, according to the canonical ABI.
    fn core_type(&mut self, method: &CodecMethod<'_>) -> Option<(Vec<ValType>, Vec<ValType>)> {
        let layouts = self.layouts.get_mut(method.service)?;
        let params = method.signature.params.iter().map(|param| param.ty);
        let mut flat = layouts.flat_all(params);
        if flat.len() > MAX_FLAT_PARAMS {
            flat = vec![I32];
        }
        let results = match method.signature.result.map(|ty| layouts.flat(ty)) {
            None => Vec::new(),
            Some(flat) if flat.len() <= 1 => flat,
            Some(_) => vec![I32],
        };
        Some((flat, results))
    }

    /// The function that calls one method: it reads the arguments, calls, and writes the result.
    /// `allocator` is the index of the function that allocates for it.
    fn method(
        &mut self,
        method: &CodecMethod<'_>,
        guest: u32,
        post: Option<u32>,
        allocator: Option<usize>,
    ) -> Option<Body> {
        let mut body = Body::new(&[], &[]);
        let CodecMethod { service, signature, .. } = *method;
        let params: Vec<TypeId> = signature.params.iter().map(|param| param.ty).collect();
        let layouts = self.layouts.get_mut(service)?;
        let (offsets, Shape { size, align }) = layouts.sequence(params.iter().copied())?;
        let flat = layouts.flat_all(params.iter().copied());
        let spilled = flat.len() > MAX_FLAT_PARAMS;
        let allocates = spilled || params.iter().any(|ty| layouts.allocates(*ty));
        if allocates && (self.helpers.guest.is_none() || allocator.is_none()) {
            return None;
        }
        if !spilled && size > MAX_SCRATCH {
            return None;
        }
        if allocates {
            // Malformed arguments must not allocate memory in the guest, because the codec cannot
            // free it. So all arguments are checked first.
            for ty in &params {
                self.read(&mut body, service, *ty, Mode::Check, 0, 0)?;
            }
            self.expect_end(&mut body);
            body.write()
                .global_get(helpers::START)
                .global_set(helpers::POSITION)
                .i32_const(index(allocator.unwrap_or_default()).cast_signed())
                .global_set(helpers::ALLOCATOR);
        }
        let place = body.local(I32);
        let memory = if spilled {
            body.write()
                .i32_const(align.cast_signed())
                .i32_const(size.cast_signed())
                .call(self.helpers.allocate())
                .local_set(place);
            self.helpers.guest?
        } else {
            body.write().i32_const(SCRATCH.cast_signed()).local_set(place);
            self.helpers.own
        };
        for (ty, offset) in params.iter().zip(&offsets) {
            self.read(&mut body, service, *ty, Mode::Store(memory), place, *offset)?;
        }
        self.expect_end(&mut body);
        if spilled {
            body.write().local_get(place);
        } else {
            for (ty, offset) in params.iter().zip(&offsets) {
                self.push_flat(&mut body, service, *ty, place, *offset)?;
            }
        }
        body.write().call(guest);
        let Some(result) = signature.result else {
            if let Some(post) = post {
                body.write().call(post);
            }
            return Some(body);
        };
        let flat = self.layouts.get_mut(service)?.flat(result);
        let shape = self.layouts.get_mut(service)?.shape(result)?;
        let returned = match &flat[..] {
            [only] => {
                let value = body.local(*only);
                body.write().local_set(value);
                self.keep_flat(&mut body, service, result, value)?;
                // `place` may be an address in the guest's memory, so this needs its own local.
                let kept = body.local(I32);
                body.write().i32_const(SCRATCH.cast_signed()).local_set(kept);
                self.write(&mut body, service, result, self.helpers.own, kept, 0)?;
                value
            }
            _ => {
                let pointer = body.local(I32);
                body.write().local_set(pointer);
                let bytes = body.local(I64);
                body.write().i64_const(shape.size.into()).local_set(bytes);
                Helpers::is_outside(&mut body, self.helpers.guest?, pointer, bytes);
                body.return_if(helpers::ERROR, helpers::OUT_OF_BOUNDS);
                body.push_unaligned(pointer, shape.align);
                body.return_if(helpers::ERROR, helpers::NOT_ALIGNED);
                self.write(&mut body, service, result, self.helpers.guest?, pointer, 0)?;
                pointer
            }
        };
        if let Some(post) = post {
            // If the guest's result broke the canonical ABI, the guest is not run again.
            body.write()
                .global_get(helpers::ERROR)
                .i32_eqz()
                .global_get(helpers::ERROR)
                .i32_const(helpers::TOO_LARGE)
                .i32_eq()
                .i32_or()
                .if_(BlockType::Empty)
                .local_get(returned)
                .call(post)
                .end();
        }
        Some(body)
    }

    /// Ends a method if its arguments are malformed, or if bytes follow them.
    fn expect_end(&self, body: &mut Body) {
        body.write()
            .global_get(helpers::POSITION)
            .global_get(helpers::END)
            .i32_ne()
            .if_(BlockType::Empty)
            .call(self.helpers.fail())
            .end()
            .global_get(helpers::ERROR)
            .if_(BlockType::Empty)
            .return_()
            .end();
    }
}

//! Values that a pickle builds, as far as they describe tensors.

use std::collections::HashMap;
use std::sync::Arc;

use safetensors::Dtype;

/// Maximum number of axes of a tensor; no weights have more than five.
const MAX_AXES: usize = 8;

/// Maximum number of values of a pickle, each of which takes 40 bytes and about as much for its contents; a checkpoint
/// with its optimiser has about 100,000.
pub(super) const MAX_VALUES: usize = 1 << 19;

/// Maximum number of references to values: in lists and dictionaries, on the stack, and in the memo, where one takes
/// about 40 bytes.
pub(super) const MAX_REFERENCES: usize = 1 << 20;

/// Index of a value in [`Values`].
pub(super) type Id = usize;

/// Value of a pickle. Values refer to each other by index, and texts are shared, so that a value that is used several
/// times is stored once: memory is proportional to the size of the file, whatever its contents.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Other value (`None`, boolean, float, bytes), which does not describe a tensor. The text is its kind, for names.
    Plain(&'static str),
    Int(i64),
    Text(Arc<str>),
    /// Class or function, by module and name.
    Class(Arc<str>, Arc<str>),
    /// Tuple, list or set.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage(Box<Storage>),
    Tensor(Box<View>),
    /// Result of a call that is not interpreted.
    Object(Box<Object>),
}

/// Storage that contains the values of tensors.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) key: Arc<str>,
    /// `None` if the tensor states its type (`UntypedStorage`, whose length is in bytes), or the type is unknown.
    pub(super) dtype: Option<Dtype>,
    /// Number of values, or of bytes if `dtype` is `None`.
    pub(super) length: usize,
    /// Offset of a storage view, which only early files have.
    offset: usize,
}

/// Tensor: a strided view of a storage.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) storage: Storage,
    pub(super) dtype: Dtype,
    /// Index of the first value.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// Python object that is not interpreted: the call that created it, and its state.
#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    /// Called class or function, and the list of arguments.
    pub(super) callable: Id,
    pub(super) arguments: Id,
    pub(super) state: Option<Id>,
    /// Entries, if it is a subclass of `dict` (`defaultdict`).
    pub(super) entries: Vec<(Id, Id)>,
    /// Items, if it is a subclass of `list`.
    pub(super) items: Vec<Id>,
}

/// All values of a pickle.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<Value>);

impl std::ops::Index<Id> for Values {
    type Output = Value;

    fn index(&self, id: Id) -> &Value {
        &self.0[id]
    }
}

impl std::ops::IndexMut<Id> for Values {
    fn index_mut(&mut self, id: Id) -> &mut Value {
        &mut self.0[id]
    }
}

impl Values {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, value: Value) -> Id {
        self.0.push(value);
        self.0.len() - 1
    }

    pub(super) fn text(&self, id: Id) -> Option<&Arc<str>> {
        match &self[id] {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self, id: Id) -> Option<&[Id]> {
        match &self[id] {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match &self[id] {
            Value::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let sizes = self.list(id).filter(|sizes| sizes.len() <= MAX_AXES)?;
        sizes.iter().map(|size| self.size(*size)).collect()
    }

    /// Returns the value of a key in a dictionary.
    pub(super) fn entry(&self, dict: Id, key: &str) -> Option<Id> {
        let entries = self.entries(dict)?;
        entries
            .iter()
            .rev()
            .find(|(name, _)| self.text(*name).is_some_and(|name| **name == *key))
            .map(|(_, value)| *value)
    }

    /// Returns the entries of a `dict` or of a subclass of it.
    pub(super) fn entries(&self, dict: Id) -> Option<&[(Id, Id)]> {
        match &self[dict] {
            Value::Dict(entries) => Some(entries),
            Value::Object(object) if !object.entries.is_empty() => Some(&object.entries),
            _ => None,
        }
    }

    /// Returns the types of all storages by their keys.
    pub(super) fn storages(&self) -> HashMap<&str, Option<Dtype>> {
        let storages = self.0.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some((&*storage.key, storage.dtype)),
            _ => None,
        });
        storages.collect()
    }

    /// Interprets calls that create tensors and containers; any other call becomes an object.
    pub(super) fn call(&mut self, callable: Id, arguments: Id) -> Id {
        let (module, name) = match &self[callable] {
            Value::Class(module, name) => (&**module, &**name),
            _ => ("", ""),
        };
        let fields = self.list(arguments).unwrap_or_default();
        let tensor = |view| Value::Tensor(Box::new(view));
        let made = match (module, name, fields) {
            ("collections", "OrderedDict", []) => Some(Value::Dict(Vec::new())),
            ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple", [items]) => return *items,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => return *data,
            ("torch._tensor", "_rebuild_from_type_v2", [function, _, arguments, ..]) => match &self[*function] {
                Value::Class(_, name) if name.starts_with("_rebuild_tensor") => {
                    let fields = self.list(*arguments).unwrap_or_default();
                    self.tensor(fields, &**name == "_rebuild_tensor_v3").map(tensor)
                }
                _ => None,
            },
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3", _) => {
                self.tensor(fields, name == "_rebuild_tensor_v3").map(tensor)
            }
            _ => None,
        };
        let object = || Value::Object(Box::new(Object { callable, arguments, ..Object::default() }));
        let made = made.unwrap_or_else(object);
        self.add(made)
    }

    /// Creates a tensor from `(storage, offset, shape, stride, ..)`; in version 3 the seventh field is the type.
    fn tensor(&self, fields: &[Id], typed: bool) -> Option<View> {
        let &[storage, offset, shape, stride, ..] = fields else { return None };
        let Value::Storage(storage) = &self[storage] else { return None };
        let dtype = match (typed, storage.dtype) {
            (true, _) => match &self[*fields.get(6)?] {
                Value::Class(_, name) => dtype_of(name)?,
                _ => return None,
            },
            (false, dtype) => dtype?,
        };
        Some(View {
            dtype,
            offset: self.size(offset)?.checked_add(storage.offset)?,
            shape: self.sizes(shape)?,
            stride: self.sizes(stride)?,
            storage: Storage::clone(storage),
        })
    }

    /// Creates a storage from `('storage', class, key, location, length[, view])`.
    pub(super) fn storage(&self, id: Id) -> Option<Storage> {
        let &[tag, class, key, _, length, ref view @ ..] = self.list(id)? else { return None };
        let class = match &self[class] {
            Value::Class(_, name) | Value::Text(name) => name,
            _ => return None,
        };
        let key = match &self[key] {
            Value::Text(key) => key.clone(),
            Value::Int(key) => key.to_string().into(),
            _ => return None,
        };
        // Early files have storage views: (key, offset, length).
        let offset = match view.first().and_then(|view| self.list(*view)) {
            Some(&[_, offset, _]) => self.size(offset)?,
            _ => 0,
        };
        let storage = Storage { key, dtype: dtype_of_storage(class), length: self.size(length)?, offset };
        self.text(tag).is_some_and(|tag| **tag == *"storage").then_some(storage)
    }
}

fn dtype_of_storage(class: &str) -> Option<Dtype> {
    Some(match class {
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

fn dtype_of(name: &str) -> Option<Dtype> {
    Some(match name {
        "float32" | "float" => Dtype::F32,
        "float64" | "double" => Dtype::F64,
        "float16" | "half" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "int64" | "long" => Dtype::I64,
        "int32" | "int" => Dtype::I32,
        "int16" | "short" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "uint16" => Dtype::U16,
        "uint32" => Dtype::U32,
        "uint64" => Dtype::U64,
        "bool" => Dtype::BOOL,
        _ => return None,
    })
}

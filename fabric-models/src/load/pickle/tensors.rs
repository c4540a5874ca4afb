//! Search for the tensors in a pickle, which are named by their paths.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use fabric_core::printable;

use super::values::{Id, Object, Value, Values, View};
use crate::load::TensorInfo;

/// Maximum nesting depth of dictionaries and lists.
const MAX_DEPTH: usize = 128;

/// Maximum number of visited values. A value that occurs several times is visited each time, so a file of 1 kB could
/// otherwise make the search endless; a checkpoint with its optimiser has about 100,000.
const MAX_VISITS: usize = 1 << 22;

/// Maximum number of values of a tensor that repeats values of its storage (stride 0); bounds memory.
const MAX_REPEATED: usize = 1 << 20;

/// Maximum length of a tensor's name and of all names, and maximum number of tensors; real files are far below. A file
/// has a long key once, but its tensors may share it.
const MAX_NAME_BYTES: usize = 1024;
const MAX_NAMES_BYTES: usize = 1 << 24;
const MAX_TENSORS: usize = 1 << 16;

/// Entry of a training checkpoint that contains the weights.
const STATE_DICT: &str = "state_dict";

/// Tensors by name.
pub(super) type Tensors = BTreeMap<String, View>;

/// Finds the tensors of a file. If it has a `state_dict` with tensors, only that is searched.
///
/// Names are dictionary keys and list indices joined with dots. Keys of other types than text, integer or class get
/// a name in angle brackets, so that they do not collide with other tensors.
pub(super) fn find(values: &Values, root: Id) -> Result<Tensors, String> {
    let search = |root| {
        let mut search = Search { values, got: Tensors::new(), name_bytes: 0, visits: 0, path: Vec::new() };
        search.walk(root, 0).map(|()| search.got)
    };
    if let Some(state_dict) = values.entry(root, STATE_DICT) {
        let got = search(state_dict)?;
        if !got.is_empty() {
            return Ok(got);
        }
    }
    search(root)
}

/// Checks that a tensor lies within its storage, and returns its type and shape.
pub(super) fn info(name: &str, view: &View) -> Result<TensorInfo, String> {
    let View { storage, dtype, offset, shape, stride } = view;
    let fault = |what: String| Err(format!("tensor `{}` of shape {shape:?} {what}", printable(name)));
    let size = dtype.bitsize() / 8;
    // The length of an untyped storage is in bytes.
    let length = if storage.dtype.is_some() { storage.length } else { storage.length / size };
    let elements = shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
    // The tensor is read by offsets in bytes, which must not exceed what a buffer can have.
    let is_addressable = |end: &usize| end.checked_mul(size).is_some_and(|bytes| isize::try_from(bytes).is_ok());
    let (Some(end), Some(elements)) = (end(view).filter(is_addressable), elements) else {
        return fault("that is larger than any memory".to_owned());
    };
    if shape.len() != stride.len() || end > length {
        return fault(format!("and strides {stride:?} from value {offset} of {length} values"));
    }
    if elements > length.max(MAX_REPEATED) {
        return fault(format!("that repeats {length} values {} times", elements / length.max(1)));
    }
    Ok(TensorInfo { dtype: *dtype, shape: shape.clone() })
}

/// End of the values of a tensor in its storage; `None` on overflow.
pub(super) fn end(view: &View) -> Option<usize> {
    if view.shape.contains(&0) {
        return Some(view.offset);
    }
    let mut steps = view.shape.iter().zip(&view.stride);
    steps.try_fold(view.offset.checked_add(1)?, |end, (side, step)| end.checked_add((side - 1).checked_mul(*step)?))
}

struct Search<'a> {
    values: &'a Values,
    got: Tensors,
    name_bytes: usize,
    visits: usize,
    path: Vec<Arc<str>>,
}

impl Search<'_> {
    fn walk(&mut self, id: Id, depth: usize) -> Result<(), String> {
        self.visit(depth)?;
        let values = self.values;
        if let Some(entries) = values.entries(id) {
            return self.entries(entries, depth);
        }
        match &values[id] {
            Value::List(items) => self.items(items, depth),
            Value::Tensor(view) => self.tensor(view),
            Value::Object(object) => self.object(object, depth),
            _ => Ok(()),
        }
    }

    fn tensor(&mut self, view: &View) -> Result<(), String> {
        // The length is checked before joining: the same long key may occur at every level.
        let length: usize = self.path.iter().map(|part| part.len() + 1).sum();
        if length > MAX_NAME_BYTES || self.got.len() == MAX_TENSORS {
            return Err(format!("more than {MAX_TENSORS} tensors, or a name of more than {MAX_NAME_BYTES} bytes"));
        }
        self.name_bytes += length;
        if self.name_bytes > MAX_NAMES_BYTES {
            return Err(format!("names of tensors of more than {MAX_NAMES_BYTES} bytes"));
        }
        let name = self.path.join(".");
        match self.got.insert(name, view.clone()) {
            Some(_) => Err(format!("two tensors with the name `{}`", printable(self.path.join(".")))),
            None => Ok(()),
        }
    }

    fn entries(&mut self, entries: &[(Id, Id)], depth: usize) -> Result<(), String> {
        for (key, value) in entries {
            let name = match &self.values[*key] {
                Value::Text(text) => text.clone(),
                Value::Int(number) => number.to_string().into(),
                Value::Class(_, name) => name.clone(),
                Value::Plain(kind) => format!("<{kind} {key}>").into(),
                _ => format!("<key {key}>").into(),
            };
            self.within(name, *value, depth)?;
        }
        Ok(())
    }

    fn items(&mut self, items: &[Id], depth: usize) -> Result<(), String> {
        items.iter().enumerate().try_for_each(|(i, item)| self.within(i.to_string().into(), *item, depth))
    }

    fn within(&mut self, name: Arc<str>, value: Id, depth: usize) -> Result<(), String> {
        self.path.push(name);
        self.walk(value, depth + 1)?;
        self.path.pop();
        Ok(())
    }

    fn object(&mut self, object: &Object, depth: usize) -> Result<(), String> {
        // The key lookups below scan all entries each time the object occurs, so they count as visits.
        let entries = object.state.and_then(|state| self.values.entries(state)).unwrap_or_default().len();
        self.visits = self.visits.saturating_add(entries);
        if let Some(tables) = object.state.and_then(|state| self.module(state)) {
            // A network that was saved as an object: collect the tensors of its `state_dict()`.
            let skipped = self.not_persistent(object.state);
            for (i, table) in tables.into_iter().enumerate() {
                let entries = self.values.entries(table).unwrap_or_default();
                self.visits = self.visits.saturating_add(entries.len() + skipped.len());
                let is_kept = |key: Id| i != 1 || self.values.text(key).is_none_or(|name| !skipped.contains(name));
                let kept: Vec<(Id, Id)> = entries.iter().filter(|(key, _)| is_kept(*key)).copied().collect();
                self.entries(&kept, depth)?;
            }
            return Ok(());
        }
        let arguments = self.values.list(object.arguments).unwrap_or_default();
        let (module, name) = match &self.values[object.callable] {
            Value::Class(module, name) => (&**module, &**name),
            _ => ("", ""),
        };
        if let ("collections", "OrderedDict", [pairs]) = (module, name, arguments) {
            // `OrderedDict` as Python 2 wrote it: a list of pairs.
            for pair in self.values.list(*pairs).unwrap_or_default() {
                if let Some(&[key, value]) = self.values.list(*pair) {
                    self.entries(&[(key, value)], depth)?;
                }
            }
            return Ok(());
        }
        if !object.items.is_empty() {
            return self.items(&object.items, depth);
        }
        if self.is_other_tensor(module, name, object, depth)? {
            let (path, maker) = (self.path.join("."), format!("{module}.{name}"));
            return Err(format!("`{}`, a tensor made by `{}`", printable(path), printable(maker)));
        }
        Ok(())
    }

    /// Returns whether an object is a tensor that is not dense (sparse, quantised) or has no known storage. Such
    /// tensors are reported as errors and not skipped silently.
    fn is_other_tensor(&mut self, module: &str, name: &str, object: &Object, depth: usize) -> Result<bool, String> {
        if !matches!(module, "torch" | "torch._utils" | "torch._tensor") {
            return Ok(false);
        }
        if name.starts_with("_rebuild_") {
            return Ok(true);
        }
        let in_arguments = self.holds_storage(object.arguments, depth)?;
        Ok(in_arguments || object.state.map_or(Ok(false), |state| self.holds_storage(state, depth))?)
    }

    /// Returns parameters, buffers and submodules if the state is that of a `torch.nn.Module`.
    fn module(&self, state: Id) -> Option<[Id; 3]> {
        let table = |name| {
            let table = self.values.entry(state, name)?;
            matches!(&self.values[table], Value::Dict(_)).then_some(table)
        };
        Some([table("_parameters")?, table("_buffers")?, table("_modules")?])
    }

    /// Names of a module's non-persistent buffers, which its `state_dict()` omits.
    fn not_persistent(&self, state: Option<Id>) -> HashSet<Arc<str>> {
        let list = state.and_then(|state| self.values.entry(state, "_non_persistent_buffers_set"));
        let names = list.and_then(|list| self.values.list(list)).unwrap_or_default();
        names.iter().filter_map(|name| self.values.text(*name).cloned()).collect()
    }

    fn holds_storage(&mut self, id: Id, depth: usize) -> Result<bool, String> {
        self.visit(depth)?;
        let values = self.values;
        match &values[id] {
            Value::Storage(_) | Value::Tensor(_) => return Ok(true),
            Value::List(items) => {
                for item in items {
                    if self.holds_storage(*item, depth + 1)? {
                        return Ok(true);
                    }
                }
            }
            Value::Dict(entries) => {
                for (_, value) in entries {
                    if self.holds_storage(*value, depth + 1)? {
                        return Ok(true);
                    }
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn visit(&mut self, depth: usize) -> Result<(), String> {
        self.visits += 1;
        if depth > MAX_DEPTH || self.visits > MAX_VISITS {
            return Err(format!("values nested more than {MAX_DEPTH} times, or more than {MAX_VISITS} of them"));
        }
        Ok(())
    }
}

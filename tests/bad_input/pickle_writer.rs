//! Writer of PyTorch files, piece by piece, so that each piece can be wrong.

/// Returns the instructions for a text.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// Returns the instructions for an integer.
pub(crate) fn int(number: i64) -> Vec<u8> {
    [b"\x8a\x08".as_slice(), &number.to_le_bytes()].concat()
}

/// Returns the instructions for a tuple.
pub(crate) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".as_slice(), &items.concat(), b"t"].concat()
}

/// Returns the instructions for a dictionary.
pub(crate) fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().map(|(key, value)| [text(key).as_slice(), value, b"s"].concat());
    std::iter::once(b"}".to_vec()).chain(entries).collect::<Vec<_>>().concat()
}

/// Returns the instructions for a class or function by its name.
pub(crate) fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

/// Returns the instructions that call a function.
pub(crate) fn call(function: Vec<u8>, arguments: &[Vec<u8>]) -> Vec<u8> {
    [function, tuple(arguments), b"R".to_vec()].concat()
}

/// Returns the instructions for a storage that has the key `0`.
pub(crate) fn storage(class: &str, length: i64) -> Vec<u8> {
    let items = [text("storage"), global("torch", class), text("0"), text("cpu"), int(length)];
    [tuple(&items), b"Q".to_vec()].concat()
}

/// Returns the instructions for a tensor that is a view of a storage.
pub(crate) fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], stride: &[i64]) -> Vec<u8> {
    let [shape, stride] = [shape, stride].map(|numbers| numbers.iter().map(|number| int(*number)).collect::<Vec<_>>());
    let arguments = [storage, int(offset), tuple(&shape), tuple(&stride), b"\x89".to_vec(), b"}".to_vec()];
    call(global("torch._utils", "_rebuild_tensor_v2"), &arguments)
}

/// Returns the instructions for a tensor with one value, in f32.
pub(crate) fn one_value() -> Vec<u8> {
    tensor(storage("FloatStorage", 1), 0, &[1], &[1])
}

/// Returns a whole pickle with this result.
pub(crate) fn pickle(result: &[u8]) -> Vec<u8> {
    [b"\x80\x02".as_slice(), result, b"."].concat()
}

/// Returns a file in the form before PyTorch 1.6 with this pickle, and with the storage `0` of one value, which is 3.
pub(crate) fn older_form(values: &[u8]) -> Vec<u8> {
    let keys = pickle(&[b"]".as_slice(), &text("0"), b"a"].concat());
    older_form_with(b"\x80\x02}.", values, &[keys.as_slice(), &1_u64.to_le_bytes(), &3_f32.to_le_bytes()].concat())
}

/// Returns a file in the form before PyTorch 1.6 with these pickles of the machine and of the values, and these bytes
/// from the keys of the storages on.
pub(crate) fn older_form_with(machine: &[u8], values: &[u8], storages: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [magic.as_slice(), b"\x80\x02M\xe9\x03.", machine, values, storages].concat()
}

/// Entry of a zip archive.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Compression method; 0 is none.
    pub(crate) method: u16,
    /// Length that the archive says the entry has.
    pub(crate) length: u32,
}

impl Entry {
    /// Creates an entry that is not compressed.
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.to_owned(), bytes: bytes.to_vec(), method: 0, length: bytes.len() as u32 }
    }
}

/// Returns a zip archive. Checksums are 0, as no reader here checks them.
pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut list): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    for Entry { name, bytes, method, length } in entries {
        let offset = file.len() as u32;
        // Version, flags, method, time, date, checksum, both lengths, length of the name, length of the extra field.
        let common = |out: &mut Vec<u8>| {
            out.extend([10, 0, 0, 0]);
            out.extend(method.to_le_bytes());
            out.extend([0; 8]);
            out.extend(length.to_le_bytes());
            out.extend(length.to_le_bytes());
            out.extend((name.len() as u16).to_le_bytes());
            out.extend([0; 2]);
        };
        file.extend(b"PK\x03\x04");
        common(&mut file);
        file.extend(name.as_bytes());
        file.extend(bytes);
        list.extend(b"PK\x01\x02\x0a\0");
        common(&mut list);
        // Length of the comment, disk, attributes, offset.
        list.extend([0; 10]);
        list.extend(offset.to_le_bytes());
        list.extend(name.as_bytes());
    }
    let (count, start, size) = (entries.len() as u16, file.len() as u32, list.len() as u32);
    file.extend(list);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    file.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    file.extend([0; 2]);
    file
}

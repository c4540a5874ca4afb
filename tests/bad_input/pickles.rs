//! PyTorch files that would run programs, fill memory, or never end, and files that are cut short.

use std::fs;
use std::path::Path;

use fabric::models::load::{TensorSource, open_weights};

use crate::case::{Case, Outcome, check, file, said, sparse_file};
use crate::models::fixture;
use crate::pickle_writer::{
    Entry, call, dict, global, int, older_form, older_form_with, one_value, pickle, storage, tensor, text, tuple, zip,
};

pub(crate) const COUNT: usize = 144;

const NAME: &str = "a.bin";

/// File that a payload would write if it ran.
const MARKER: &str = "payload-ran";

fn open(place: &Path) -> Outcome {
    said(open_weights(place.join(NAME)))
}

/// Opens a file that has a payload beside its one tensor `w`: the tensor is read, and the payload does not run.
fn open_inert(place: &Path) -> Outcome {
    let weights = open_weights(place.join(NAME)).map_err(|error| error.to_string())?;
    let value = weights.read("w").map_err(|error| error.to_string())?.bytes;
    check(value == 3_f32.to_le_bytes(), format!("the value {value:?}"))?;
    check(!Path::new(MARKER).exists() && !place.join(MARKER).exists(), "the payload ran")
}

pub(crate) fn check_base() {
    let place = tempfile::tempdir().expect("a folder");
    let good = dict(&[("w", one_value())]);
    let archive = zip(&[Entry::new("m/data.pkl", &pickle(&good)), Entry::new("m/data/0", &3_f32.to_le_bytes())]);
    for bytes in [older_form(&pickle(&good)), archive] {
        fs::write(place.path().join(NAME), bytes).expect("a written file");
        open_inert(place.path()).expect("a tensor");
    }
}

/// A file in the older form with this pickle.
fn values(name: &str, pickle: &[u8], words: &[&str]) -> Case {
    bytes(name, older_form(pickle), words)
}

/// A file in the older form whose pickle has this result.
fn result(name: &str, result: &[u8], words: &[&str]) -> Case {
    values(name, &pickle(result), words)
}

/// A file in the older form with this object under the name `w`.
fn object(name: &str, object: Vec<u8>, words: &[&str]) -> Case {
    result(name, &dict(&[("w", object)]), words)
}

fn bytes(name: &str, bytes: Vec<u8>, words: &[&str]) -> Case {
    Case::refused(name, &[words, &[NAME]].concat(), file(NAME, bytes), open)
}

/// A file with this object beside a good tensor.
fn inert(name: impl Into<String>, object: Vec<u8>) -> Case {
    let root = dict(&[("payload", object), ("w", one_value())]);
    let to = "the payload is kept as data, and the tensor is read";
    Case::falls_back(name, to, file(NAME, older_form(&pickle(&root))), open_inert)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = payloads();
    cases.extend(instructions());
    cases.extend(bombs());
    cases.extend(tensors());
    cases.extend(storages());
    cases.extend(archives());
    cases.extend(truncations());
    cases
}

/// Functions with which published malicious files run programs, and their arguments.
fn functions() -> [(&'static str, &'static str, Vec<Vec<u8>>); 16] {
    let command = || vec![text(&format!("touch {MARKER}"))];
    let python = || vec![text(&format!("open('{MARKER}', 'w')"))];
    [
        ("posix", "system", command()),
        ("nt", "system", command()),
        ("os", "popen", command()),
        ("os", "execvp", vec![text("touch"), tuple(&[text("touch"), text(MARKER)])]),
        ("subprocess", "Popen", vec![tuple(&[text("touch"), text(MARKER)])]),
        ("subprocess", "check_output", command()),
        ("builtins", "eval", python()),
        ("builtins", "exec", python()),
        ("builtins", "open", vec![text(MARKER), text("w")]),
        ("builtins", "getattr", vec![global("os", "path"), text("exists")]),
        ("importlib", "import_module", vec![text("os")]),
        ("runpy", "_run_code", python()),
        ("shutil", "rmtree", vec![text(MARKER)]),
        ("torch", "load", vec![text(MARKER)]),
        ("webbrowser", "open", vec![text("http://localhost:9/")]),
        ("socket", "create_connection", vec![tuple(&[text("localhost"), int(9)])]),
    ]
}

/// Calls, which stay data.
fn payloads() -> Vec<Case> {
    let mut cases: Vec<Case> = functions()
        .into_iter()
        .map(|(module, name, arguments)| {
            inert(format!("a call of `{module}.{name}`"), call(global(module, name), &arguments))
        })
        .collect();
    let system = || global("posix", "system");
    let command = || text(&format!("touch {MARKER}"));
    let run = || call(system(), &[command()]);
    let named = [text("posix"), text("system"), b"\x93".to_vec()].concat();
    cases.extend([
        inert("a function named by two texts", call(named, &[command()])),
        inert("a call as an instance", [b"(".to_vec(), command(), b"iposix\nsystem\n".to_vec()].concat()),
        inert("a call as an object", [b"(".to_vec(), system(), command(), b"o".to_vec()].concat()),
        inert("a call of `__new__`", [system(), tuple(&[command()]), b"\x81".to_vec()].concat()),
        inert("a call with keywords", [system(), tuple(&[command()]), b"}".to_vec(), b"\x92".to_vec()].concat()),
        inert("a call in the arguments of a call", call(global("builtins", "print"), &[run()])),
        inert(
            "a call in a list that is made a set",
            call(global("builtins", "set"), &[[b"(".as_slice(), &run(), b"l"].concat()]),
        ),
        inert("a call as the state of an object", [run(), run(), b"b".to_vec()].concat()),
        inert("a call as the key of a dictionary", [b"}".to_vec(), run(), int(1), b"s".to_vec()].concat()),
        inert("a call that is thrown away", [run(), b"0N".to_vec()].concat()),
        inert("a name of a persistent object", b"Pposix.system\n".to_vec()),
        inert("a persistent object that is a call", [run(), b"Q".to_vec()].concat()),
        inert("a call as the data of a parameter", call(global("torch._utils", "_rebuild_parameter"), &[run()])),
        inert("a call of a text", call(text("posix.system"), &[command()])),
        inert("a call of the result of a call", call(run(), &[command()])),
        object(
            "a call as the way to rebuild a tensor",
            call(
                global("torch._tensor", "_rebuild_from_type_v2"),
                &[system(), int(0), tuple(&[command()]), b"}".to_vec()],
            ),
            &["`w`, a tensor made by `torch._tensor._rebuild_from_type_v2`"],
        ),
    ]);
    cases
}

/// Instructions that do not exist, or that take what is not there.
fn instructions() -> Vec<Case> {
    let (stack, memo) = ("takes more from its stack than there is", "a memo");
    vec![
        values("an instruction that does not exist", b"\x80\x02\xff", &["the instruction 0xff, which is not known"]),
        values("a code of the registry of extensions", b"\x80\x02\x82\x01.", &["the instruction 0x82"]),
        values("a result that is not there", b"\x80\x02.", &[stack]),
        values("a value taken from an empty stack", b"\x80\x020.", &[stack]),
        values("a value taken from below a mark", b"\x80\x02N(\x85.", &[stack]),
        values("a call without arguments", b"\x80\x02NR.", &[stack]),
        values("a tuple without a mark", b"\x80\x02t.", &[stack]),
        values("an object without a class", b"\x80\x02(o.", &["an object without a class"]),
        values("a class named by numbers", b"\x80\x02K\x01K\x02\x93.", &["a class without a name"]),
        values("an item for what is no list", b"\x80\x02}Na.", &["items for what is no list"]),
        values("an entry for what is no dictionary", b"\x80\x02]NNs.", &["entries for what is no dictionary"]),
        values("a key without a value", b"\x80\x02}(Nu.", &["a key that has no value"]),
        values("a memo that is empty", b"\x80\x02h\x07.", &[memo, "empty"]),
        values("a memo that is no number", b"\x80\x02gx\n.", &[memo, "no number"]),
        values("a memo below zero", b"\x80\x02N\x70-1\n.", &[memo, "no number"]),
        values("a line that does not end", b"\x80\x02cos", &["a pickle that ends too early"]),
        values("a text of 4 GB that does not come", b"\x80\x02X\xff\xff\xff\xff", &["ends too early"]),
        values(
            "a text of 2^64 bytes that does not come",
            b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
            &["ends too early"],
        ),
        values("a number of 2 GB that does not come", b"\x80\x02\x8b\xff\xff\xff\x7f", &["ends too early"]),
        values(
            "bytes of 2^64 bytes that do not come",
            b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
            &["ends too early"],
        ),
    ]
}

/// Small files that would fill memory or never end.
fn bombs() -> Vec<Case> {
    // Each tuple has the one before it twice.
    let mut doubled = b"\x80\x02]q\x00".to_vec();
    (1..60_u8).for_each(|at| doubled.extend([b'h', at - 1, b'h', at - 1, 0x86, b'q', at]));
    doubled.push(b'.');
    // Each dictionary has the one before it under two names.
    let mut dictionaries = b"\x80\x02}q\x00".to_vec();
    (1..60_u8).for_each(|at| {
        dictionaries.extend(b"}");
        ["a", "b"].iter().for_each(|key| dictionaries.extend([text(key), vec![b'h', at - 1, b's']].concat()));
        dictionaries.extend([b'q', at]);
    });
    dictionaries.push(b'.');
    let nested = |levels: usize, key: &str| (0..levels).fold(one_value(), |inner, _| dict(&[(key, inner)]));
    let tuples = [vec![b')'], vec![0x85; 100_000]].concat();
    let long = "x".repeat(2000);
    let many = [b"\x80\x02".as_slice(), &vec![b'N'; (1 << 22) + 2]].concat();
    let items = [b"Nq\x000]".as_slice(), &b"h\x00a".repeat(1 << 20)].concat();
    let pairs = [b"\x80\x02Nq\x000".as_slice(), &b"h\x00h\x00\x860".repeat(1 << 20)].concat();
    let memo: Vec<u8> = (0..=1_u32 << 20).flat_map(|at| [b"r".as_slice(), &at.to_le_bytes()].concat()).collect();
    let memo = [b"\x80\x02N".as_slice(), &memo].concat();
    let tensors = [b"]".to_vec(), one_value(), b"q\x00a".to_vec(), b"h\x00a".repeat(20_000)].concat();
    let shared = dict(&[(&"x".repeat(1000), tensors)]);
    // The name of a tensor joins the same long text once for each level.
    let one_key = [b"}".to_vec(), text(&"k".repeat(60_000)), b"q\x01".to_vec(), one_value(), b"s".to_vec()].concat();
    let levels = (0..100).fold(one_key, |inner, _| {
        // The memo has the key only after the innermost dictionary was made, so the others take it from there.
        [inner, b"q\x02}h\x01h\x02s".to_vec()].concat()
    });
    vec![
        values("a list within itself", b"\x80\x02]q\x00h\x00a.", &["nested more than 128 times"]),
        result("a dictionary within itself", &[b"}q\x00".as_slice(), &text("a"), b"h\x00s"].concat(), &["nested"]),
        values("tuples doubled 60 times by the memo", &doubled, &["nested", "more than 4194304 of them"]),
        values("dictionaries doubled 60 times by the memo", &dictionaries, &["nested"]),
        result("a tensor within 200 dictionaries", &nested(200, "a"), &["nested more than 128 times"]),
        result("100,000 tuples within each other", &tuples, &["nested more than 128 times"]),
        values("four million values", &many, &["a pickle of more than 524288 values"]),
        result("a million items and no tensor", &items, &["a pickle of more than 1048576 references"]),
        values("a million tuples of one value", &pairs, &["a pickle of more than 1048576 references"]),
        values("a memo of a million entries", &memo, &["a pickle of more than 1048576 references"]),
        result("20,000 tensors with a long name that they share", &shared, &["names of tensors of more than 16777216"]),
        object("a tensor with a long name", nested(1, &long), &["a name of more than 1024 bytes"]),
        result("a name of six million bytes by the memo", &levels, &["a name of more than 1024 bytes"]),
        result("an empty dictionary", b"}", &["no tensors", "is this a file of weights?"]),
        result("no dictionary", b"N", &["no tensors"]),
        result(
            "a name used twice",
            &dict(&[("w", one_value()), ("w", one_value())]),
            &["two tensors with the name `w`"],
        ),
        result(
            "a name used as a number and as a text",
            &[dict(&[("1", one_value())]), int(1), one_value(), b"s".to_vec()].concat(),
            &["two tensors with the name `1`"],
        ),
    ]
}

/// Tensors that no storage has, or that are no plain arrays.
fn tensors() -> Vec<Case> {
    let one = || storage("FloatStorage", 1);
    let made = "`w`, a tensor made by `torch._utils._rebuild_tensor_v2`";
    let huge = 1 << 62;
    let other = |function: &str| call(global("torch._utils", function), &[one(), int(0), tuple(&[int(1)])]);
    let repeated = tensor(one(), 0, &[1 << 20], &[0]);
    let names: Vec<String> = (0..20).map(|at| format!("t{at}")).collect();
    let twenty: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), repeated.clone())).collect();
    vec![
        object("one value repeated 10^12 times", tensor(one(), 0, &[1_000_000; 2], &[0, 0]), &["repeats 1 values"]),
        result("20 tensors of 4 MB of one value", &dict(&twenty), &["tensors of 83886080 bytes in a file of"]),
        object("a tensor longer than its storage", tensor(one(), 0, &[2], &[1]), &["tensor `w`", "of 1 values"]),
        object(
            "a tensor behind its storage",
            tensor(one(), 1, &[1], &[1]),
            &["tensor `w`", "from value 1 of 1 values"],
        ),
        object("strides beyond the storage", tensor(one(), 0, &[2, 1], &[1, 1]), &["tensor `w`", "of 1 values"]),
        object("more sides than strides", tensor(one(), 0, &[1, 1], &[1]), &["tensor `w`", "and strides [1]"]),
        object("sides whose product overflows", tensor(one(), 0, &[huge, huge], &[0, 0]), &["larger than any memory"]),
        object("an offset beyond all numbers", tensor(one(), huge, &[huge], &[huge]), &["larger than any memory"]),
        object("a negative side", tensor(one(), 0, &[-1], &[1]), &[made]),
        object("a negative stride", tensor(one(), 0, &[1], &[-1]), &[made]),
        object("a negative offset", tensor(one(), -1, &[1], &[1]), &[made]),
        object("nine axes", tensor(one(), 0, &[1; 9], &[1; 9]), &[made]),
        object("a tensor without a storage", tensor(b"N".to_vec(), 0, &[1], &[1]), &[made]),
        object("a tensor without arguments", call(global("torch._utils", "_rebuild_tensor_v2"), &[]), &[made]),
        object("a storage of an unknown type", tensor(storage("QInt8Storage", 1), 0, &[1], &[1]), &[made]),
        object("a storage of bytes without a type", tensor(storage("UntypedStorage", 4), 0, &[1], &[1]), &[made]),
        object("a storage of negative length", tensor(storage("FloatStorage", -1), 0, &[1], &[1]), &[made]),
        object("a sparse tensor", other("_rebuild_sparse_tensor"), &["made by `torch._utils._rebuild_sparse_tensor`"]),
        object("a quantised tensor", other("_rebuild_qtensor"), &["made by `torch._utils._rebuild_qtensor`"]),
        object(
            "a tensor on no device",
            other("_rebuild_meta_tensor_no_storage"),
            &["made by `torch._utils._rebuild_meta"],
        ),
    ]
}

/// The list of storages and their values in the older form.
fn storages() -> Vec<Case> {
    let good = pickle(&dict(&[("w", one_value())]));
    let keys = |key: &[u8]| pickle(&[b"]".as_slice(), key, b"a"].concat());
    let with = |name: &str, keys: Vec<u8>, count: u64, words: &[&str]| {
        let storages = [keys.as_slice(), &count.to_le_bytes(), &3_f32.to_le_bytes()].concat();
        bytes(name, older_form_with(b"\x80\x02}.", &good, &storages), words)
    };
    let zero = || keys(&text("0"));
    let big_endian = pickle(&dict(&[("little_endian", b"\x89".to_vec())]));
    let unknown = pickle(&dict(&[("w", one_value()), ("x", storage("QInt8Storage", 1))]));
    let version = [b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".as_slice(), b"\x80\x02K\x07."].concat();
    let longer = pickle(&dict(&[("w", tensor(storage("FloatStorage", 9), 0, &[9], &[1]))]));
    vec![
        with("a count beyond all numbers", zero(), u64::MAX, &["a storage larger than any file"]),
        with("a count beyond the file", zero(), 1000, &["a storage that ends at byte"]),
        with("a storage that no tensor has", keys(&text("7")), 1, &["a storage `7` that nothing describes"]),
        with("a key that clears the terminal", keys(&text("\u{1b}[2J")), 1, &["a storage `\\u{1b}[2J` that nothing"]),
        with("a key that is no text", keys(b"N"), 1, &["a list of storages that is none"]),
        with("a list of storages that is a number", pickle(b"K\x01"), 1, &["a list of storages that is none"]),
        with("no storages", pickle(b"]"), 1, &["tensor `w` longer than its storage in the file"]),
        bytes(
            "a file from a machine of another order",
            older_form_with(&big_endian, &good, &zero()),
            &["another order of bytes"],
        ),
        values("a storage of an unknown type under a known key", &unknown, &["of a type that is not known"]),
        values("a storage shorter than the pickle says", &longer, &["tensor `w` longer than its storage in the file"]),
        bytes("another version of the older form", version, &["that is not 1001"]),
    ]
}

/// Zip archives that are incomplete, compressed, or that claim far more than they have.
fn archives() -> Vec<Case> {
    let good = pickle(&dict(&[("w", one_value())]));
    let value = 3_f32.to_le_bytes();
    let data = || Entry::new("m/data.pkl", &good);
    let stored = || Entry::new("m/data/0", &value);
    let whole = zip(&[data(), stored()]);
    // Of the record at the end, the length of the list of entries is at 10 and its offset at 6 from the end.
    let with_end = |from_end: usize, bytes: [u8; 4]| {
        let mut changed = whole.clone();
        let at = changed.len() - from_end;
        changed[at..at + 4].copy_from_slice(&bytes);
        changed
    };
    let outside = "a zip archive whose list of entries lies outside of it";
    // A locator of the second end record, which lies far behind the file.
    let end = whole.len() - 22;
    let locator = |offset: u64| {
        let record = [b"PK\x06\x07\0\0\0\0".as_slice(), &offset.to_le_bytes(), &[1, 0, 0, 0]].concat();
        [&whole[..end], &record, &whole[end..]].concat()
    };
    let compressed = Entry { method: 8, length: u32::MAX - 1, ..data() };
    let order = |order: &[u8]| zip(&[data(), stored(), Entry::new("m/byteorder", order)]);
    let hostile = Entry::new("m\u{1b}[2J/data.pkl", &good);
    let long = Entry { length: 1 << 29, ..data() };
    vec![
        bytes("an archive without its end", whole[..end].to_vec(), &["a zip archive without its end"]),
        bytes("an archive without a pickle", zip(&[stored()]), &["a zip archive without `data.pkl`"]),
        bytes("an archive without entries", zip(&[]), &["not a PyTorch checkpoint"]),
        bytes("an archive without the storage", zip(&[data()]), &["a zip archive without `m/data/0`"]),
        bytes("a compressed pickle that claims 4 GB", zip(&[compressed, stored()]), &["`m/data.pkl` compressed"]),
        bytes("a compressed storage", zip(&[data(), Entry { method: 8, ..stored() }]), &["`m/data/0` compressed"]),
        bytes("a pickle that reaches beyond the archive", zip(&[long, stored()]), &["`m/data.pkl` that lies outside"]),
        bytes(
            "a storage that reaches beyond the archive",
            zip(&[data(), Entry { length: 1 << 29, ..stored() }]),
            &["`m/data/0` that lies outside"],
        ),
        bytes("a list of entries of 4 GB", with_end(10, [0xff; 4]), &[outside]),
        bytes("a list of entries behind the file", with_end(6, [0xff; 4]), &[outside]),
        bytes("a second end record behind the file", locator(1 << 40), &["ends too early"]),
        bytes("a second end record that is none", locator(0), &["a zip archive without its second end"]),
        bytes("a second end record at the largest offset", locator(u64::MAX), &["read"]),
        bytes("an archive of another order of bytes", order(b"big"), &["another order of bytes"]),
        bytes("an archive of an unknown order of bytes", order(b"middle"), &["another order of bytes"]),
        bytes(
            "an archive in a folder that clears the terminal",
            zip(&[hostile]),
            &["a zip archive without `m\\u{1b}[2J/data/0`"],
        ),
        bytes("an archive of one byte of header", b"PK\x03\x04P".to_vec(), &["a zip archive without its end"]),
        Case::refused(
            "an archive of 300 MiB without an end",
            &["a zip archive without its end", NAME],
            sparse_file(NAME, b"PK\x03\x04".to_vec(), 300 << 20),
            open,
        ),
    ]
}

/// Whole files cut at many places, and bytes that are none of PyTorch's forms.
fn truncations() -> Vec<Case> {
    let mut cases = vec![
        bytes("an empty file", Vec::new(), &["not a PyTorch checkpoint"]),
        bytes("no pickle at all", b"no pickle at all".to_vec(), &["not a PyTorch checkpoint", "torch.save"]),
        bytes("a bare pickle without the magic number", pickle(b"}"), &["not a PyTorch checkpoint"]),
        bytes("a safetensors file", b"\x08\0\0\0\0\0\0\0{}      ".to_vec(), &["not a PyTorch checkpoint"]),
    ];
    for (name, parts) in [("tiny.bin", 12), ("before-1.6.bin", 12)] {
        let whole = fs::read(fixture(name)).expect("a fixture");
        for part in 1..parts {
            let length = whole.len() * part / parts;
            cases.push(bytes(
                &format!("{part} of {parts} parts of {name}"),
                whole[..length].to_vec(),
                &["PyTorch file"],
            ));
        }
    }
    cases
}

//! Interpreter for the stack machine of the pickle format, as far as tensors require it.
//!
//! No code is executed. A call is either one of the few with which PyTorch describes tensors, or it is recorded as a
//! name with arguments. Other objects of a checkpoint (callbacks, optimisers, settings) may have any form, so that its
//! tensors can be read; only invalid pickles are rejected.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use super::values::{Id, MAX_REFERENCES, MAX_VALUES, Value, Values};

/// Error while reading a pickle.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// The file is invalid, with a description.
    Broken(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Broken("a pickle that ends too early".to_owned()),
            _ => Self::Io(error),
        }
    }
}

fn broken<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Broken(what.into()))
}

/// Interprets one pickle; leaves the input positioned after it. Returns all values and the id of the result.
pub(super) fn run(input: &mut impl BufRead) -> Result<(Values, Id), Fault> {
    let (values, memo) = (Values::default(), HashMap::new());
    let mut machine = Machine { input, values, stack: Vec::new(), marks: Vec::new(), memo, stored: 0 };
    while machine.step()? {}
    let root = machine.pop()?;
    Ok((machine.values, root))
}

struct Machine<'a, R> {
    input: &'a mut R,
    values: Values,
    stack: Vec<Id>,
    /// Heights of the stack at the open MARK instructions.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Number of values that were taken from the stack into lists and dictionaries.
    stored: usize,
}

impl<R: BufRead> Machine<'_, R> {
    /// Runs one instruction; returns false for STOP.
    fn step(&mut self) -> Result<bool, Fault> {
        if self.values.count() > MAX_VALUES {
            return broken(format!("a pickle of more than {MAX_VALUES} values"));
        }
        if self.stack.len() + self.marks.len() + self.memo.len() + self.stored > MAX_REFERENCES {
            return broken(format!("a pickle of more than {MAX_REFERENCES} references to its values"));
        }
        let code = self.u8()?;
        match code {
            b'.' => return Ok(false),
            // PROTO and FRAME: their arguments are skipped.
            0x80 => drop(self.bytes(1)?),
            0x95 => drop(self.bytes(8)?),

            b'N' => self.plain("None"),
            0x88 => self.plain("True"),
            0x89 => self.plain("False"),
            b'I' => {
                let line = self.line()?;
                match line.parse() {
                    _ if line == "00" => self.plain("False"),
                    _ if line == "01" => self.plain("True"),
                    Ok(number) => self.push(Value::Int(number)),
                    Err(_) => self.plain("int"),
                }
            }
            b'L' => match self.line()?.trim_end_matches('L').parse() {
                Ok(number) => self.push(Value::Int(number)),
                Err(_) => self.plain("int"),
            },
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()));
            }
            b'K' => {
                let number = self.u8()?;
                self.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()));
            }
            0x8a => {
                let length = self.u8()?.into();
                self.long(length)?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'F' => {
                self.line()?;
                self.plain("float");
            }
            b'G' => {
                self.bytes(8)?;
                self.plain("float");
            }

            b'V' => {
                let line = self.line()?;
                self.push(Value::Text(line.into()));
            }
            b'S' => {
                let line = self.line()?;
                self.push(Value::Text(line.trim_matches(['\'', '"']).into()));
            }
            b'T' | b'X' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            b'U' | 0x8c => {
                let length = self.u8()?.into();
                self.text(length)?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(length)?;
            }
            b'B' => {
                let length = self.length4()?;
                self.skip(length)?;
            }
            b'C' => {
                let length = self.u8()?.into();
                self.skip(length)?;
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.array()?);
                self.skip(length)?;
            }

            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.stack.push(self.top()?),

            b')' | b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            0x85..=0x87 => {
                let mut items = (0x84..code).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                self.stored += items.len();
                self.push(Value::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(in_pairs(&items)?));
            }
            b'a' => {
                let item = self.pop()?;
                self.stored += 1;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.stored += 2;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }

            b'g' => match self.line()?.parse() {
                Ok(index) => self.get(index)?,
                Err(_) => return broken("a memo index that is no number"),
            },
            b'h' => {
                let index = self.u8()?.into();
                self.get(index)?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.get(index)?;
            }
            b'p' => match self.line()?.parse() {
                Ok(index) => drop(self.memo.insert(index, self.top()?)),
                Err(_) => return broken("a memo index that is no number"),
            },
            b'q' => {
                let index = self.u8()?.into();
                self.memo.insert(index, self.top()?);
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.memo.insert(index, self.top()?);
            }
            0x94 => drop(self.memo.insert(self.memo.len() as u32, self.top()?)),

            b'c' => {
                let class = self.class()?;
                self.push(class);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let class = match (self.values.text(module), self.values.text(name)) {
                    (Some(module), Some(name)) => Value::Class(module.clone(), name.clone()),
                    _ => return broken("a class without a name"),
                };
                self.push(class);
            }
            b'P' => {
                self.line()?;
                self.plain("persistent id");
            }
            b'Q' => {
                let id = self.pop()?;
                match self.values.storage(id) {
                    Some(storage) => self.push(Value::Storage(Box::new(storage))),
                    None => self.plain("persistent id"),
                }
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let made = self.values.call(callable, arguments);
                self.stack.push(made);
            }
            0x92 => {
                let (_keywords, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                let made = self.values.call(class, arguments);
                self.stack.push(made);
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                let Some((class, arguments)) = items.split_first() else { return broken("an object without a class") };
                let arguments = self.values.add(Value::List(arguments.to_vec()));
                let made = self.values.call(*class, arguments);
                self.stack.push(made);
            }
            b'i' => {
                let class = self.class()?;
                let (class, arguments) = (self.values.add(class), self.pop_to_mark()?);
                let arguments = self.values.add(Value::List(arguments));
                let made = self.values.call(class, arguments);
                self.stack.push(made);
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                if let Value::Object(object) = &mut self.values[object] {
                    object.state = Some(state);
                }
            }
            other => return broken(format!("a pickle with the instruction {other:#04x}, which is not known")),
        }
        Ok(true)
    }

    fn push(&mut self, value: Value) {
        let id = self.values.add(value);
        self.stack.push(id);
    }

    fn plain(&mut self, kind: &'static str) {
        self.push(Value::Plain(kind));
    }

    fn top(&self) -> Result<Id, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor.min(self.stack.len())..].last().copied().ok_or_else(empty)
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        self.top()?;
        self.stack.pop().ok_or_else(empty)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or_else(empty)?;
        let items = self.stack.split_off(mark);
        self.stored += items.len();
        Ok(items)
    }

    fn append(&mut self, new: &[Id]) -> Result<(), Fault> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(items) => items.extend(new),
            Value::Object(object) => object.items.extend(new),
            _ => return broken("items for what is no list"),
        }
        Ok(())
    }

    fn set(&mut self, new: &[Id]) -> Result<(), Fault> {
        let dict = self.top()?;
        let new = in_pairs(new)?;
        match &mut self.values[dict] {
            Value::Dict(entries) => entries.extend(new),
            Value::Object(object) => object.entries.extend(new),
            _ => return broken("entries for what is no dictionary"),
        }
        Ok(())
    }

    fn get(&mut self, index: u32) -> Result<(), Fault> {
        match self.memo.get(&index) {
            Some(id) => self.stack.push(*id),
            None => return broken("a memo that is empty"),
        }
        Ok(())
    }

    fn long(&mut self, length: u64) -> Result<(), Fault> {
        let bytes = self.bytes(length)?;
        let sign = bytes.last().map_or(0, |last| if last & 0x80 == 0 { 0 } else { 0xff });
        // The number may have any length; for an i64, the bytes beyond the first 16 must be sign extension.
        let mut wide = [sign; 16];
        let (low, high) = bytes.split_at(bytes.len().min(wide.len()));
        wide[..low.len()].copy_from_slice(low);
        match i64::try_from(i128::from_le_bytes(wide)) {
            Ok(number) if high.iter().all(|byte| *byte == sign) => self.push(Value::Int(number)),
            // Sizes of tensors are smaller, so the value is not needed.
            _ => self.plain("int"),
        }
        Ok(())
    }

    fn text(&mut self, length: u64) -> Result<(), Fault> {
        // Python 2 wrote byte strings with the same instruction, so the text may not be UTF-8.
        match String::from_utf8(self.bytes(length)?) {
            Ok(text) => self.push(Value::Text(text.into())),
            Err(_) => self.plain("bytes"),
        }
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), Fault> {
        self.bytes(length)?;
        self.plain("bytes");
        Ok(())
    }

    fn class(&mut self) -> Result<Value, Fault> {
        let (module, name) = (self.line()?, self.line()?);
        Ok(Value::Class(module.into(), name.into()))
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(|[byte]| byte)
    }

    fn length4(&mut self) -> Result<u64, Fault> {
        Ok(u32::from_le_bytes(self.array()?).into())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads `length` bytes. Memory grows with the bytes actually read, because `length` is untrusted.
    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        if self.input.take(length).read_to_end(&mut bytes)? as u64 == length {
            Ok(bytes)
        } else {
            Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
        }
    }

    fn line(&mut self) -> Result<String, Fault> {
        let mut bytes = Vec::new();
        self.input.read_until(b'\n', &mut bytes)?;
        if bytes.pop() != Some(b'\n') {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned())
    }
}

fn empty() -> Fault {
    Fault::Broken("a pickle that takes more from its stack than there is".to_owned())
}

fn in_pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, Fault> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return broken("a dictionary with a key that has no value");
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

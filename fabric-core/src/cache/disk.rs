//! Reference keys and values on disk: one file per recording, in a temporary folder.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use burn::tensor::{DType, Device, Tensor, TensorData};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{ReferenceTokens, TokensBySite};
use crate::attention::AttnSite;

const PREFIX: &str = "fabric-spill-";

/// Age from which an unlocked folder is deleted. Younger ones may be those of processes that are about to lock them.
/// Folders in use usually change more often than once an hour, so that this also spares those of other machines where a
/// shared file system does not share its locks.
const ABANDONED_AGE: Duration = Duration::from_secs(60 * 60);

/// Temporary folder, removed on drop.
#[derive(Debug)]
pub(super) struct SpillFolder {
    /// The folder itself, open and locked while it is in use; `None` where the system cannot lock folders (Windows).
    /// The lock ends with the process, however it ends. Declared first, because an open folder may not be removable.
    _lock: Option<File>,
    folder: TempDir,
    /// Number of files created so far; each file is named by its number, and names are never reused.
    files: AtomicU64,
}

impl SpillFolder {
    /// Creates the folder inside `parent`, and deletes folders there that ended processes left.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX);
        // Keys and values reveal much about a person's images, so other users must not be able to read them.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = builder.tempdir_in(parent)?;
        let lock = locked(folder.path());
        remove_abandoned(parent);
        Ok(Self { _lock: lock, folder, files: AtomicU64::new(0) })
    }

    /// Writes a recording. A returned [`SpilledTokens`] always has a completely written file.
    pub(super) fn write(&self, tokens: &TokensBySite) -> io::Result<SpilledTokens> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let file = OwnFile(self.folder.path().join(number.to_string()));
        let mut out = File::create_new(&file.0)?;
        let mut digest = Sha256::new();
        let mut write = |x: &Tensor<3>| {
            // Copies the tensor to the host, which waits until the device has computed it.
            let data = x.clone().into_data();
            digest.update(data.as_bytes());
            out.write_all(data.as_bytes())?;
            Ok::<_, io::Error>(Layout { dims: x.dims(), dtype: x.dtype(), device: x.device() })
        };
        let mut parts = Vec::with_capacity(tokens.len());
        for (&site, ReferenceTokens { key, value, merged_counts }) in tokens {
            parts.push(Part { site, key: write(key)?, value: write(value)?, merged_counts: merged_counts.clone() });
        }
        // No fsync: the file is useless after the process ends.
        Ok(SpilledTokens { file, parts, digest: digest.finalize().into() })
    }
}

/// Opens and locks a folder; `None` if another process has locked it, or the system cannot lock folders.
fn locked(folder: &Path) -> Option<File> {
    File::open(folder).ok().filter(|open| open.try_lock().is_ok())
}

/// Deletes spill folders of processes that ended without removing them, whose locks ended with them.
///
/// Errors are ignored: such folders only take room.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Metadata of the entry itself, and not of what a link leads to.
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
        if !metadata.is_dir() || age.is_none_or(|age| age <= ABANDONED_AGE) {
            continue;
        }
        // Locked until it is gone, so that of two processes only one deletes it.
        if let Some(_lock) = locked(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Recording in a file that is removed on drop.
///
/// The file has only the raw values. Shapes and types stay in memory, so no file header has to be trusted. A digest
/// ensures that a truncated, overwritten or damaged file never affects an image.
#[derive(Debug)]
pub(super) struct SpilledTokens {
    file: OwnFile,
    parts: Vec<Part>,
    digest: [u8; 32],
}

impl SpilledTokens {
    /// Reads the recording back, bit for bit, onto its original device.
    pub(super) fn read(&self) -> io::Result<TokensBySite> {
        let mut file = File::open(&self.file.0)?;
        let got = file.metadata()?.len();
        let expected: usize = self.parts.iter().map(|part| part.key.bytes() + part.value.bytes()).sum();
        if got != expected as u64 {
            return Err(damaged(format!("it has {got} bytes, expected {expected}")));
        }
        let mut digest = Sha256::new();
        let mut read = |layout: &Layout| {
            let mut bytes = vec![0; layout.bytes()];
            file.read_exact(&mut bytes)?;
            digest.update(&bytes);
            Ok::<_, io::Error>(bytes)
        };
        let bytes =
            self.parts.iter().map(|part| Ok([read(&part.key)?, read(&part.value)?])).collect::<io::Result<Vec<_>>>()?;
        if <[u8; 32]>::from(digest.finalize()) != self.digest {
            return Err(damaged("its bytes are not those that were written".to_owned()));
        }
        let tokens = self.parts.iter().zip(bytes).map(|(part, [key, value])| {
            let (key, value) = (part.key.tensor(key), part.value.tensor(value));
            (part.site, ReferenceTokens { key, value, merged_counts: part.merged_counts.clone() })
        });
        Ok(tokens.collect())
    }
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Layout of one layer's keys and values in the file.
#[derive(Debug)]
struct Part {
    site: AttnSite,
    key: Layout,
    value: Layout,
    merged_counts: Vec<(usize, f32)>,
}

/// Shape, type and device of a tensor in the file.
#[derive(Debug)]
struct Layout {
    dims: [usize; 3],
    dtype: DType,
    device: Device,
}

impl Layout {
    fn bytes(&self) -> usize {
        self.dims.iter().product::<usize>() * self.dtype.size()
    }

    fn tensor(&self, bytes: Vec<u8>) -> Tensor<3> {
        Tensor::from_data(TensorData::from_bytes_vec(bytes, self.dims, self.dtype), (&self.device, self.dtype))
    }
}

/// File that is removed on drop, also if writing it failed half way.
#[derive(Debug)]
struct OwnFile(PathBuf);

impl Drop for OwnFile {
    fn drop(&mut self) {
        // Best effort: a file that remains is removed with the folder.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttnKind, Block};

    fn site(layer: usize) -> AttnSite {
        AttnSite { block: Block::Up(1), attention: 2, layer, kind: AttnKind::SelfAttention }
    }

    /// All 16-bit patterns, including infinities, NaN, subnormal numbers and both zeros.
    fn all_bits(dtype: DType) -> Tensor<3> {
        let bytes = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let dims = [1, (1 << 17) / 8 / dtype.size(), 8];
        Tensor::from_data(TensorData::from_bytes_vec(bytes, dims, dtype), (&Device::flex(), dtype))
    }

    fn recording() -> TokensBySite {
        let tokens =
            |dtype, merged_counts| ReferenceTokens { key: all_bits(dtype), value: all_bits(dtype), merged_counts };
        // A slice of a larger tensor, like one of several rows recorded at once.
        let part = all_bits(DType::F32).slice([0..1, 100..300, 0..8]);
        let part =
            ReferenceTokens { key: part.clone(), value: part.slice([0..1, 7..9, 2..5]), merged_counts: Vec::new() };
        TokensBySite::from([
            (site(0), tokens(DType::F32, vec![])),
            (site(1), tokens(DType::F16, vec![(3, 1.0), (2, 4.0)])),
            (site(2), tokens(DType::BF16, vec![])),
            (site(3), part),
        ])
    }

    #[track_caller]
    fn assert_equal_bits(a: &TokensBySite, b: &TokensBySite) {
        assert_eq!(a.len(), b.len());
        for (site, a) in a {
            let b = &b[site];
            assert_eq!(a.merged_counts, b.merged_counts);
            for (a, b) in [(&a.key, &b.key), (&a.value, &b.value)] {
                assert_eq!((a.dims(), a.dtype(), a.device()), (b.dims(), b.dtype(), b.device()));
                let [a, b] = [a, b].map(|x| x.clone().into_data());
                assert!(a.as_bytes() == b.as_bytes(), "other bits at {site}");
            }
        }
    }

    #[test]
    fn what_is_read_is_what_was_written_to_the_bit_in_every_type() {
        let place = tempfile::tempdir().unwrap();
        let folder = SpillFolder::new(place.path()).unwrap();
        let tokens = recording();
        let spilled = folder.write(&tokens).unwrap();
        // Another file must not disturb the first.
        let other = folder.write(&TokensBySite::from([(site(9), tokens[&site(1)].clone())])).unwrap();
        assert_equal_bits(&spilled.read().unwrap(), &tokens);
        assert_eq!(other.read().unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_is_not_as_it_was_written_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let folder = SpillFolder::new(place.path()).unwrap();
        let spilled = folder.write(&recording()).unwrap();
        let path = &spilled.file.0;
        let good = fs::read(path).unwrap();
        let error = |bytes: &[u8]| {
            fs::write(path, bytes).unwrap();
            spilled.read().unwrap_err().to_string()
        };
        let mut changed = good.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(error(&changed).contains("not those that were written"));
        assert!(error(&good[..good.len() - 1]).contains("expected"));
        assert!(error(&[&good[..], &[0]].concat()).contains("expected"));
        assert!(error(&[]).contains("has 0 bytes"));
        fs::write(path, &good).unwrap();
        assert!(spilled.read().is_ok());
        fs::remove_file(path).unwrap();
        assert_eq!(spilled.read().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_and_folder_go_with_their_owners() {
        let count = |folder: &Path| fs::read_dir(folder).unwrap().count();
        let place = tempfile::tempdir().unwrap();
        let folder = SpillFolder::new(place.path()).unwrap();
        let path = folder.folder.path().to_owned();
        let [one, two] = [(); 2].map(|()| folder.write(&recording()).unwrap());
        assert_eq!(count(&path), 2);
        drop(one);
        assert_eq!(count(&path), 1);
        drop((folder, two));
        assert_eq!(count(place.path()), 0);
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let folder = SpillFolder::new(place.path()).unwrap();
        fs::remove_dir(folder.folder.path()).unwrap();
        assert_eq!(folder.write(&recording()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn folders_of_ended_processes_are_deleted_and_those_in_use_stay() {
        let place = tempfile::tempdir().unwrap();
        let used = SpillFolder::new(place.path()).unwrap();
        let tokens = recording();
        let spilled = used.write(&tokens).unwrap();
        let made = |name: &str| {
            let folder = place.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("0"), "keys and values").unwrap();
            folder
        };
        let [left, young, other] = ["fabric-spill-left", "fabric-spill-young", "other"].map(made);
        let file = place.path().join("fabric-spill-file");
        fs::write(&file, "no folder").unwrap();
        for path in [used.folder.path(), &left, &other, &file] {
            let earlier = std::time::SystemTime::now() - Duration::from_secs(2 * 60 * 60);
            File::open(path).unwrap().set_modified(earlier).unwrap();
        }
        let next = SpillFolder::new(place.path()).unwrap();
        assert!(!left.exists() && young.exists() && other.exists() && file.exists());
        assert_equal_bits(&spilled.read().unwrap(), &tokens);
        drop((spilled, used, next));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_look_into_the_folder() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let folder = SpillFolder::new(place.path()).unwrap();
        assert_eq!(fs::metadata(folder.folder.path()).unwrap().permissions().mode() & 0o077, 0);
    }
}

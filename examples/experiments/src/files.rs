//! Writing files whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Writes a temporary file beside `path`, syncs it to disk, then renames it to `path`. After an error, `path` has its
/// old content.
pub(crate) fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // Temporary files are private to their user by default, this one is as readable as any new file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".written-").suffix(".tmp").tempfile_in(folder)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Makes the folder in which a file is to be written.
pub(crate) fn make_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

//! The studio: a web page on one's own machine for rounds of images that are steered with votes, reasons and image
//! prompts.
//!
//! | part | module |
//! |---|---|
//! | the model, its adapter and presets | `model`, `settings` |
//! | sessions on disk and in memory, their changes | `sessions`, `studio_session`, `about`, `edits`, `transfer` |
//! | the queue, and the thread that generates | `jobs`, `job`, `worker` |
//! | the votes, the times and the memory of a round | `made_with`, `timeline`, `peak_memory` |
//! | the HTTP interface, which `openapi.json` describes | `routes`, `body`, `segments`, `views`, `events`, `error` |
//! | who may use it | `access`, `guard` |
//! | the page | `assets` |

#![forbid(unsafe_code)]

mod about;
mod access;
mod assets;
mod body;
mod edits;
mod error;
mod events;
mod guard;
mod ids;
mod job;
mod jobs;
mod made_with;
mod model;
mod peak_memory;
mod routes;
mod segments;
mod sessions;
mod settings;
mod studio;
mod studio_session;
mod timeline;
mod transfer;
mod views;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;

pub use access::Access;
pub use error::StudioError;
pub use model::Model;
pub use routes::{api_paths, router};
pub use studio::Studio;

/// Compiles and runs the code of the guide for application developers, which needs an async runtime.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/app-developer.md")]
struct AppDeveloperGuide;

/// Serves the studio until the process ends. The rules of access are those of the listener's address.
///
/// # Errors
///
/// Returns an error if the address can be reached from other machines and there is no token.
pub async fn serve(listener: TcpListener, studio: Arc<Studio>, token: Option<&str>) -> Result<(), StudioError> {
    let access = Access::new(listener.local_addr()?, token)?;
    Ok(axum::serve(listener, router(studio, access)).await?)
}

/// Locks a mutex. What is behind it is whole also if another thread panicked: changes are made to copies.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Tests of the studio's server on the model that ships, without a browser.

mod description;
mod errors;
mod events;
mod guard;
mod harness;
mod jobs;
mod load;
mod rounds;
mod sessions;
mod transfer;

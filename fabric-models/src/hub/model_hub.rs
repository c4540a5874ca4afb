use std::path::PathBuf;
use std::time::Duration;

use super::cache::ModelCache;
use super::client::Client;
use super::download::Download;
use super::environment::Environment;
use super::names::{ModelName, check_revision, check_variant};
use super::progress::HubCallback;
use super::select::{MODEL_INDEX, Selection};
use super::token::Token;
use super::{HubError, HubProgress};
use crate::load::listed_components;

/// Address of Hugging Face's hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Client of Hugging Face's hub, or of a server with the same protocol.
///
/// ```no_run
/// use fabric_core::pipeline::Pipeline;
/// use fabric_models::LoadPipeline;
/// use fabric_models::hub::ModelHub;
///
/// let folder = ModelHub::new()?.fetch("stabilityai/stable-diffusion-xl-base-1.0")?;
/// let pipeline = Pipeline::open(folder, &fabric_backends::default_device()?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ModelHub {
    endpoint: String,
    cache: PathBuf,
    revision: String,
    variant: Option<String>,
    token: Option<Token>,
    offline: bool,
    timeout: Duration,
    progress: Option<HubCallback>,
}

impl ModelHub {
    /// Creates a client with the settings of the environment.
    ///
    /// | variable | setting | default |
    /// |---|---|---|
    /// | `HF_ENDPOINT` | address of the hub | `https://huggingface.co` |
    /// | `HF_HUB_CACHE` | folder of the cache | `hub` in `HF_HOME` |
    /// | `HF_TOKEN` | access token, for private models and those with conditions | content of `HF_TOKEN_PATH` |
    /// | `HF_TOKEN_PATH` | file with the token | `token` in `HF_HOME` |
    /// | `HF_HUB_OFFLINE` | 1: only the cache is used | 0 |
    /// | `HF_HOME` | folder of token and cache | `huggingface` in `XDG_CACHE_HOME`, or in `.cache` in the home folder |
    /// | `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxy, not used for servers on this machine | none |
    ///
    /// # Errors
    ///
    /// Returns an error if there is no folder for the cache, a variable is not text, or the file with the token cannot
    /// be read.
    pub fn new() -> Result<Self, HubError> {
        let environment = Environment::read()?;
        let hub = Self::in_cache(environment.cache.ok_or(HubError::NoCacheFolder)?);
        Ok(Self {
            endpoint: environment.endpoint.unwrap_or(hub.endpoint),
            token: environment.token,
            offline: environment.offline,
            ..hub
        })
    }

    /// Creates a client with this folder as its cache, which reads no environment variable except those for proxies.
    pub fn in_cache(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: ENDPOINT.to_owned(),
            cache: cache.into(),
            revision: "main".to_owned(),
            variant: None,
            token: None,
            offline: false,
            timeout: Duration::from_secs(30),
            progress: None,
        }
    }

    /// Sets the address of the hub.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Sets the folder of the cache.
    #[must_use]
    pub fn with_cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.cache = cache.into();
        self
    }

    /// Sets the branch, tag or commit of the models (default `main`).
    #[must_use]
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// Prefers files of weights of a variant, such as `fp16`, which have half the size. A component without this
    /// variant is fetched as if none was set.
    ///
    /// The folder can contain files without a variant from an earlier fetch, which the loaders prefer.
    /// [`ModelOptions::variant`](crate::ModelOptions::variant) selects the variant there, for all components.
    #[must_use]
    pub fn with_variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// Sets the access token; an empty text removes it.
    #[must_use]
    pub fn with_token(mut self, token: impl AsRef<str>) -> Self {
        self.token = Token::new(token.as_ref(), "`ModelHub::with_token`");
        self
    }

    /// Sets whether only the cache is used.
    #[must_use]
    pub fn with_offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Sets how long the server may send nothing, while connecting and at any time later (default 30 s).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets a callback for the progress of a download. It is called after each part of a file of weights.
    #[must_use]
    pub fn with_progress(mut self, callback: impl Fn(&HubProgress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(HubCallback::new(callback));
        self
    }

    /// Downloads the files of a model that the cache does not have, and returns the model's folder.
    ///
    /// Only files that the loaders read are downloaded: `model_index.json`, configurations, tokenizers, and one file of
    /// weights per component (or its shards). Weights are safetensors; pickle files are downloaded for components
    /// without safetensors, if the feature `pickle` is on. If everything is in the cache, this costs one request. If
    /// the hub does not answer that request, or the client is offline, the files of the last fetch are used.
    ///
    /// Several threads and processes can fetch the same model: each file is downloaded once. The calling thread is
    /// blocked until the end.
    ///
    /// # Errors
    ///
    /// Returns an error if the name or a setting is invalid, if the model does not exist, needs a token, or is not a
    /// Stable Diffusion in the diffusers layout, if the connection fails, if a file does not have the announced size or
    /// content, or if the cache cannot be written.
    pub fn fetch(&self, model: &str) -> Result<PathBuf, HubError> {
        let model = ModelName::parse(model)?;
        check_revision(&self.revision)?;
        self.variant.as_deref().map_or(Ok(()), check_variant)?;
        let cache = ModelCache::new(&self.cache, &model);
        if self.offline {
            let error = HubError::NotInCache { folder: cache.folder().to_owned(), revision: self.revision.clone() };
            return self.cached(&model, &cache).ok_or(error);
        }
        let client = Client::new(&self.endpoint, self.token.clone(), self.timeout)?;
        let listing = match client.listing(&model, &self.revision) {
            Err(error) if error.is_unreachable() => return self.cached(&model, &cache).ok_or(error),
            listing => listing?,
        };
        let (files, commit) = (&listing.files, &*listing.commit);
        let download = Download { client: &client, cache: &cache, model: &model, commit };
        let snapshot = download.snapshot();
        // Small files first: their errors are reported before gigabytes are downloaded, and an interrupted fetch lacks
        // weights only.
        Selection::require(&model, files, MODEL_INDEX)?;
        download.fetch(&[MODEL_INDEX.to_owned()], None)?;
        let components = listed_components(&snapshot.join(MODEL_INDEX))?;
        let selection = Selection::new(&model, files, &components, self.variant.as_deref())?;
        download.fetch(&selection.small, None)?;
        let mut weights = selection.shards(&model, files, &snapshot)?;
        weights.extend(selection.weights);
        download.fetch(&weights, self.progress.as_ref())?;
        cache.set_commit(&self.revision, commit)?;
        Ok(snapshot)
    }

    /// Folder of the model in the cache, if it is complete.
    fn cached(&self, model: &ModelName, cache: &ModelCache) -> Option<PathBuf> {
        let commit = cache.commit(&self.revision)?;
        let (snapshot, files) = (cache.snapshot(&commit), cache.files(&commit));
        let components = listed_components(&snapshot.join(MODEL_INDEX)).ok()?;
        let selection = Selection::new(model, &files, &components, self.variant.as_deref()).ok()?;
        selection.shards(model, &files, &snapshot).ok()?;
        Some(snapshot)
    }
}

//! The files of the page.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// A file of the page.
#[derive(Debug)]
pub(crate) struct Asset {
    pub(crate) path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All files of the page.
pub(crate) static ASSETS: [Asset; 14] = [
    Asset { path: "/", kind: "text/html; charset=utf-8", text: include_str!("../page/index.html") },
    Asset { path: "/style.css", kind: "text/css; charset=utf-8", text: include_str!("../page/style.css") },
    Asset { path: "/icon.svg", kind: "image/svg+xml", text: include_str!("../page/icon.svg") },
    Asset { path: "/app.js", kind: SCRIPT, text: include_str!("../page/app.js") },
    Asset { path: "/api.js", kind: SCRIPT, text: include_str!("../page/api.js") },
    Asset { path: "/session.js", kind: SCRIPT, text: include_str!("../page/session.js") },
    Asset { path: "/rounds.js", kind: SCRIPT, text: include_str!("../page/rounds.js") },
    Asset { path: "/reason.js", kind: SCRIPT, text: include_str!("../page/reason.js") },
    Asset { path: "/conditions.js", kind: SCRIPT, text: include_str!("../page/conditions.js") },
    Asset { path: "/mask.js", kind: SCRIPT, text: include_str!("../page/mask.js") },
    Asset { path: "/compare.js", kind: SCRIPT, text: include_str!("../page/compare.js") },
    Asset { path: "/attention.js", kind: SCRIPT, text: include_str!("../page/attention.js") },
    Asset { path: "/keyboard.js", kind: SCRIPT, text: include_str!("../page/keyboard.js") },
    Asset { path: "/dom.js", kind: SCRIPT, text: include_str!("../page/dom.js") },
];

impl Asset {
    pub(crate) fn response(&self) -> Response {
        ([(header::CONTENT_TYPE, self.kind)], self.text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small() {
        let bytes: usize = ASSETS.iter().map(|asset| asset.text.len()).sum();
        assert!(bytes <= 150_000, "{bytes} bytes");
    }

    #[test]
    fn scripts_import_files_of_the_page_alone() {
        for asset in ASSETS.iter().filter(|asset| asset.kind == SCRIPT) {
            let imported = asset.text.split(" from \"").skip(1).filter_map(|rest| rest.split('"').next());
            for name in imported.filter(|name| name.starts_with('.')) {
                let path = name.trim_start_matches('.');
                assert!(ASSETS.iter().any(|other| other.path == path), "{} imports {name}", asset.path);
            }
        }
    }
}

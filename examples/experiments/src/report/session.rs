//! Images of a session in rows, such as one per round.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fabric::core::image::{Image, Mark};
use maud::{Markup, html};

use super::ReportError;

/// The images of a session.
#[derive(Debug, Clone, Default)]
pub struct SessionRows<'a> {
    /// Text above the images, such as the prompt.
    pub caption: String,
    /// The rows of images, such as rounds, each with its heading.
    pub rows: Vec<(String, Vec<SessionImage<'a>>)>,
}

/// An image of a session. It is embedded once per use.
#[derive(Debug, Clone)]
pub struct SessionImage<'a> {
    /// The image.
    pub image: &'a Image,
    /// Whether the image was liked or disliked.
    pub mark: Mark,
    /// Text below the image, such as its score.
    pub caption: String,
}

/// Returns the label of a mark, which is also its class in the style sheet: frames are told apart without colours.
fn mark_name(mark: Mark) -> Option<&'static str> {
    match mark {
        Mark::None => None,
        Mark::Liked => Some("liked"),
        Mark::Disliked => Some("disliked"),
    }
}

/// Renders the images of a session, with their marks.
pub(super) fn session(session: &SessionRows<'_>) -> Result<Markup, ReportError> {
    let data_uri = |round: usize, image: usize, content: &Image| {
        let png = content.to_png_bytes();
        let png =
            png.map_err(|source| ReportError::Image { caption: session.caption.clone(), round, image, source })?;
        Ok::<_, ReportError>(format!("data:image/png;base64,{}", STANDARD.encode(png)))
    };
    Ok(html! {
        figure {
            figcaption { (session.caption) }
            @for (round, (heading, images)) in (1..).zip(&session.rows) {
                div.round {
                    h3 { (heading) }
                    div.images {
                        @for (image, shown) in (1..).zip(images) {
                            @let mark = mark_name(shown.mark);
                            figure class=[mark] {
                                img src=(data_uri(round, image, shown.image)?)
                                    width=(shown.image.width()) height=(shown.image.height())
                                    alt={ (heading) ", image " (image) };
                                figcaption {
                                    @if let Some(mark) = mark { strong { (mark) } " " }
                                    (shown.caption)
                                }
                            }
                        }
                    }
                }
            }
        }
    })
}

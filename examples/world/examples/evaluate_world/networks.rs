//! Measures single networks: the readers on drawings, caption retrieval, and the VAE's reconstruction error.

use std::error::Error;

use fabric::models::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use fabric::models::load::{Component, LoadDtype, LoadOptions, ModelFolder, load_into};
use fabric::models::tiny_vae::TinyAutoencoderFiles;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::vae::{Vae, VaeConfig};
use fabric_world::{Split, measure};

use super::{Evaluation, print_head, print_line, samples};

/// Prints the readers' accuracy on drawings, the retrieval accuracy of captions, and the reconstruction errors of the
/// VAE and of the tiny decoder.
pub(crate) fn measure(evaluation: &Evaluation<'_>) -> Result<(), Box<dyn Error>> {
    print_head(&["readers on drawings, percent right"]);
    for (name, split) in [("combinations shown", Split::Train), ("combinations never shown", Split::HeldOut)] {
        print_line(&[name], &measure::readers(&evaluation.judge, &samples(split, 2000))?);
    }
    let device = &evaluation.device;
    let folder = ModelFolder::open(&evaluation.folder)?;
    let options = LoadOptions::default().with_dtype(LoadDtype::F32);
    let text: ClipText = folder.config::<ClipTextConfig>(Component::TextEncoder)?.init(device)?;
    let text = load_into(text, &*folder.weights(Component::TextEncoder)?, &options)?.0;
    let vision: ClipVision = folder.config::<ClipVisionConfig>(Component::ImageEncoder)?.init(device)?;
    let vision = load_into(vision, &*folder.weights(Component::ImageEncoder)?, &options)?.0;
    let tokenizer = ClipTokenizer::from_folder(evaluation.folder.join("tokenizer"))?;
    let asked = samples(Split::Train, 512);
    let got = measure::retrieval((&text, &vision), &tokenizer, &asked, device)?;
    println!("\n{:.1} % of captions find their own image among 64", 100.0 * got);
    let vae = load_vae(evaluation)?;
    let drawings = samples(Split::HeldOut, 512);
    println!("VAE, drawings of combinations never shown: {:.2} dB", measure::fidelity(&vae, &drawings, device)?);
    if let Some(path) = folder.preview_decoder_path() {
        let (decoder, _) = TinyAutoencoderFiles::open(path)?.load_decoder(device, &options)?;
        let fidelity = measure::decoder_fidelity(&decoder, &vae, &drawings, device)?;
        println!("tiny decoder, beside the VAE's images of the same latents: {fidelity:.2} dB");
    }
    Ok(())
}

/// Loads the model's VAE.
pub(crate) fn load_vae(evaluation: &Evaluation<'_>) -> Result<Vae, Box<dyn Error>> {
    let folder = ModelFolder::open(&evaluation.folder)?;
    let options = LoadOptions::default().with_dtype(LoadDtype::F32);
    let vae = folder.config::<VaeConfig>(Component::Vae)?.init(&evaluation.device)?;
    Ok(load_into(vae, &*folder.weights(Component::Vae)?, &options)?.0)
}

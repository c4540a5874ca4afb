//! Adapter files: files saved by diffusers, FaceID's LoRA and versions, and damaged files.

use super::*;

#[test]
fn what_diffusers_saved_is_the_adapter_that_it_loaded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/diffusers-adapters.safetensors");
    let file = std::sync::Arc::new(SafetensorsFile::open(path).expect("a file"));
    let message = AdapterFile::new(file.clone()).expect_err("three adapters").to_string();
    assert!(message.contains("expected one, got 3"), "{message}");
    for (index, kind) in ["base", "full-face", "plus"].into_iter().enumerate() {
        let saved = AdapterFile::one_of_several(file.clone(), index).expect("an adapter");
        let published =
            AdapterFile::open(folder().join("ip_adapter").join(format!("{kind}.safetensors"))).expect("a file");
        let (saved, published) = (saved.weights(), published.weights());
        assert_eq!(saved.tensors(), published.tensors(), "{kind}");
        for name in published.tensors().keys() {
            assert_eq!(saved.read(name).expect("a tensor"), published.read(name).expect("a tensor"), "{kind}: {name}");
        }
    }
}

#[test]
fn the_lora_of_faceid_changes_the_u_net_under_the_adapter() {
    let device = fabric::default_device().expect("a device");
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let model = || StableDiffusion::open(folder(), &device, &options).expect("a model").0;
    // A FaceID adapter for the golden U-Net, with a LoRA of two layers, numbered as in the published files.
    let base = adapter("base");
    let config =
        AdapterConfig { projection: ProjectionConfig::Face { identity: 8, tokens: 2 }, ..base.config().clone() };
    let place = tempfile::tempdir().expect("a folder");
    let own = place.path().join("own.safetensors");
    IpAdapter::new(config.clone(), config.init(&device)).expect("weights").save(&own, LoadDtype::F32).expect("saved");
    let bytes = std::fs::read(&own).expect("a file");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    let matrix = |shape: [usize; 2]| -> Vec<u8> {
        (0..shape[0] * shape[1]).flat_map(|at| ((at as f32 * 0.7).sin() * 0.3).to_le_bytes()).collect()
    };
    let width = config.widths[0];
    let shapes = [("down", [4, width]), ("up", [width, 4])];
    let lora: Vec<(String, [usize; 2], Vec<u8>)> = ["0.to_v_lora", "1.to_q_lora"]
        .into_iter()
        .flat_map(|name| shapes.map(|(half, shape)| (format!("ip_adapter.{name}.{half}.weight"), shape, matrix(shape))))
        .collect();
    let views = lora.iter().map(|(name, shape, values)| {
        (name.clone(), TensorView::new(safetensors::Dtype::F32, shape.to_vec(), values).expect("a matrix"))
    });
    let path = place.path().join("faceid.safetensors");
    serialize_to_file(tensors.iter().map(|(name, view)| (name.to_owned(), view)).chain(views), None, &path)
        .expect("written");

    let file = AdapterFile::open(&path).expect("a file");
    assert_eq!(file.config().expect("an adapter"), AdapterConfig { lora_rank: Some(4), ..config.clone() });
    let adapter = IpAdapter::open(&path, &device).expect("an adapter");
    let mut tuned = model();
    let lora = file.lora(&tuned.unet.cross_attentions()).expect("matrices").expect("a LoRA");
    let report;
    (tuned.unet, report) = merge(tuned.unet, &lora, 1.0).expect("places");
    assert_eq!(report.applied.len(), 2, "{report:?}");
    let identity = |value: f32| Features::Face(Tensor::<2>::ones([1, 8], &device) * value);
    let made = |pipeline: &Pipeline| {
        let prompt = adapter.prompt_from_features(identity(0.5), None);
        latents(&pipeline.generate(&request().with(prompt)).expect("images"))
    };
    let [with, without] = [tuned, model()].map(|model| made(&model.into_pipeline().expect("a pipeline")));
    assert!(distance(&with, &without) > 1e-3);
    assert!(distance(&without, &make(&request())) > 1e-3);
}

#[test]
fn damaged_adapter_files_are_refused_by_name() {
    let device = fabric::default_device().expect("a device");
    let place = tempfile::tempdir().expect("a folder");
    let whole = std::fs::read(folder().join("ip_adapter/base.safetensors")).expect("a file");
    let nan = |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let changes: [(&str, Change<'_>); 5] = [
        ("empty", &|bytes| bytes.clear()),
        ("short", &|bytes| bytes.truncate(100)),
        ("half", &|bytes| bytes.truncate(bytes.len() / 2)),
        ("long", &|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes())),
        ("nan", &nan),
    ];
    for (name, change) in changes {
        let path = place.path().join(format!("{name}.safetensors"));
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).expect("written");
        let message = IpAdapter::open(&path, &device).expect_err(name).to_string();
        assert!(message.contains(&format!("{name}.safetensors")), "{message}");
        assert!(message.contains("got") || message.contains("NaN"), "{message}");
    }
    let message = IpAdapter::open(place.path().join("none.safetensors"), &device).expect_err("no file").to_string();
    assert!(message.contains("none.safetensors"), "{message}");
}

#[test]
fn the_version_of_faceid_plus_is_the_callers() {
    let device = fabric::default_device().expect("a device");
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("plus.safetensors");
    let projection = ProjectionConfig::FaceResampler { identity: 8, features: 12, tokens: 2, version: FaceVersion::V1 };
    let config = AdapterConfig { projection, widths: vec![8], context: 64, lora_rank: None };
    let adapter = IpAdapter::new(config.clone(), config.init(&device)).expect("an adapter");
    adapter.save(&path, LoadDtype::F32).expect("saved");
    let wave = |count: usize| Tensor::<1, Int>::arange(0..count as i64, &device).float().sin();
    let identities = wave(8).reshape([1, 8]);
    let features = Features::FaceAndTokens { identities, tokens: wave(36).reshape([1, 3, 12]) };
    let tokens = |version| {
        let adapter = IpAdapter::open_as(&path, version, &device).expect("an adapter");
        adapter.tokens(&features).expect("tokens").into_data().try_to_vec::<f32>().expect("f32")
    };
    assert!(distance(&tokens(FaceVersion::V1), &tokens(FaceVersion::V2)) > 1e-2);
}

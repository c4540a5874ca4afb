//! Rounds: what they are made with, their images, comparisons, attention and times.

use axum::body::Bytes;
use fabric::core::image::{Image, ImageMetadata};
use serde_json::{Value, json};

use crate::harness::{Server, images, in_base64, text};

#[tokio::test]
async fn a_round_has_images_with_metadata_that_never_change() {
    let server = Server::new();
    let path = server.session(3).await;
    let session = server.round(&path, 2).await;
    let round = &session["rounds"][0];
    assert_eq!((&round["index"], &round["prompt"]), (&json!(0), &json!("a red star")));
    assert_eq!((round["seeds"].as_array().map(Vec::len), &round["settings"]["steps"]), (Some(2), &json!(2)));
    assert!(round["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{round}");
    assert_eq!(session["jobs"], json!([]));
    for (index, hash) in images(&session, 0).iter().enumerate() {
        let answer = server.get(&format!("{path}/images/{hash}")).await;
        assert_eq!(answer.image().content_hash().to_string(), *hash);
        assert!(answer.header("cache-control").contains("immutable"));
        let metadata = ImageMetadata::from_png_bytes(&answer.bytes).expect("metadata").metadata;
        assert_eq!((metadata.prompt.as_str(), metadata.index), ("a red star", index));
        assert_eq!(metadata.seed(), round["seeds"][index].as_u64());
    }
    let sheet = server.get(&format!("{path}/sheet")).await.image();
    assert!(sheet.width() > 2 * 64 && sheet.height() > 64, "{sheet:?}");
}

/// Makes a session with three rounds of two images, of which one is liked and one disliked, and returns the files of
/// all images.
async fn files_of_a_session(server: &Server, seed: u64) -> Vec<Bytes> {
    let path = server.session(seed).await;
    let mut files = Vec::new();
    for round in 0..3 {
        let made = images(&server.round(&path, 2).await, round);
        for (hash, strength) in made.iter().zip([1, -1]) {
            let file = server.get(&format!("{path}/images/{hash}")).await;
            assert_eq!(file.image().content_hash().to_string(), *hash);
            files.push(file.bytes);
            server.post(&format!("{path}/votes"), json!({"image": hash, "strength": strength})).await.expect(200);
        }
    }
    files
}

#[tokio::test]
async fn sessions_that_generate_at_the_same_time_get_the_same_files_as_one_after_the_other() {
    let (server, other) = (Server::new(), Server::new());
    let (first, second) = tokio::join!(files_of_a_session(&server, 1), files_of_a_session(&server, 2));
    // The files have the prompt, the seed and the references of the image, too.
    for (seed, together) in [(1, &first), (2, &second)] {
        let alone = files_of_a_session(&other, seed).await;
        assert_eq!((alone.len(), together.len()), (6, 6));
        let differ: Vec<usize> = (0..6).filter(|&at| alone[at] != together[at]).collect();
        assert!(differ.is_empty(), "images {differ:?} of the session with seed {seed} differ");
    }
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_comparison_is_the_round_without_its_votes() {
    let server = Server::new();
    let path = server.session(4).await;
    let first = server.round(&path, 2).await;
    let vote = json!({"image": images(&first, 0)[0], "strength": 1});
    server.post(&format!("{path}/votes"), vote).await.expect(200);
    let session = server.round(&path, 2).await;
    assert_eq!(session["rounds"][1]["made_with"]["liked"], json!([images(&first, 0)[0]]));

    let mut compared = Vec::new();
    for round in 0..2 {
        let job = server.post(&format!("{path}/compare"), json!({"round": round})).await.expect(202);
        assert_eq!((&job["kind"], &job["round"], &job["images"]), (&json!("compare"), &json!(round), &json!(2)));
        let job = format!("/api/jobs/{}", text(&job["id"]));
        assert_eq!(server.finished(&job).await["state"], "done");
        let image = server.get(&format!("{job}/images/1")).await;
        let metadata = ImageMetadata::from_png_bytes(&image.bytes).expect("metadata").metadata;
        assert!(metadata.references.is_empty() && metadata.seed() == session["rounds"][round]["seeds"][1].as_u64());
        compared.push(image.image().content_hash().to_string());
        server.get(&format!("{job}/images/2")).await.is_error(404, "unknown_image");
    }
    assert_eq!(compared[0], images(&session, 0)[1], "the first round had no votes");
    assert_ne!(compared[1], images(&session, 1)[1], "the second round had one");
    assert_eq!(server.get(&path).await.expect(200), session, "comparisons are no part of the session");
    server.post(&format!("{path}/compare"), json!({"round": 2})).await.is_error(404, "unknown_round");
}

#[tokio::test]
async fn a_vote_that_is_cast_during_a_round_belongs_to_the_next_one() {
    let server = Server::new();
    let path = server.session(5).await;
    let session = server.round(&path, 1).await;
    let image = images(&session, 0)[0].clone();
    server.patch(&path, json!({"settings": {"steps": 40}})).await.expect(200);
    let job = server.start(&path, 1).await;
    server.until_running(&job).await;
    // The votes are taken before the first phase begins.
    let mut events = server.events(&job).await;
    while events.next().await.is_some_and(|(name, _)| name != "phase") {}
    let vote = json!({"image": image, "strength": 1});
    server.post(&format!("{path}/votes"), vote).await.expect(200);
    server.finished(&job).await;
    let session = server.round(&path, 1).await;
    assert_eq!(session["rounds"][1]["made_with"]["liked"], json!([]));
    assert_eq!(session["rounds"][2]["made_with"]["liked"], json!([image]));
}

#[tokio::test]
async fn reasons_and_image_prompts_need_an_adapter() {
    let server = Server::new();
    let model = server.get("/api/model").await.expect(200);
    assert_eq!((&model["aspects"], &model["has_image_prompt"]), (&json!([]), &json!(false)));
    let path = server.session(6).await;
    let session = server.round(&path, 1).await;
    let image = &images(&session, 0)[0];

    let vote = json!({"image": image, "strength": 1, "reason": "style"});
    server.post(&format!("{path}/votes"), vote).await.expect(200);
    server.post(&format!("{path}/rounds"), json!({"images": 1})).await.is_error(409, "no_adapter");
    server.delete(&format!("{path}/votes/{image}")).await.expect(200);

    let conditions = json!({"conditions": [{"image": {"hash": image}, "away": true, "window": [0, 0.5]}]});
    let session = server.put(&format!("{path}/conditions"), conditions).await.expect(200);
    let expected = json!({"image": image, "aspect": null, "scale": 1.0, "window": [0.0, 0.5], "away": true});
    assert_eq!(session["conditions"], json!([expected]));
    server.post(&format!("{path}/rounds"), json!({"images": 1})).await.is_error(409, "no_adapter");
    let session = server.put(&format!("{path}/conditions"), json!({"conditions": []})).await.expect(200);
    assert_eq!((&session["conditions"], &session["jobs"]), (&json!([]), &json!([])));
    server.round(&path, 1).await;
}

#[tokio::test]
async fn a_masked_init_image_stays_where_the_mask_is_dark() {
    let server = Server::new();
    let path = server.session(7).await;
    let start = Image::filled(64, 64, [200, 40, 40]).expect("an image");
    let light = Image::from_rgb(64, 64, (0..64 * 64 * 3).map(|at| if at % 192 < 96 { 255 } else { 0 }).collect());
    let mask = light.expect("a mask").to_png_bytes().expect("a file");
    let data = |file: &[u8]| json!({"data": in_base64(file)});
    let init_image = json!({"image": data(&start.to_png_bytes().expect("a file")), "strength": 1, "mask": data(&mask)});
    let session = server.put(&format!("{path}/init_image"), json!({"init_image": init_image})).await.expect(200);
    assert_eq!(session["init_image"]["image"], start.content_hash().to_string());
    let mask = text(&session["init_image"]["mask"]).to_owned();
    assert_eq!(server.get(&format!("{path}/images/{mask}")).await.image().pixel(0, 0), [255; 3]);

    // Images of the session can be given by their hashes.
    let by_hash = json!({"image": {"hash": start.content_hash()}, "strength": 0.5, "mask": {"hash": mask}});
    let changed = server.put(&format!("{path}/init_image"), json!({"init_image": by_hash})).await.expect(200);
    assert_eq!((&changed["init_image"]["strength"], &changed["init_image"]["mask"]), (&json!(0.5), &json!(mask)));
    server.post(&format!("{path}/undo"), json!({})).await.expect(200);

    let session = server.round(&path, 1).await;
    let made = server.get(&format!("{path}/images/{}", images(&session, 0)[0])).await.image();
    let distance = |x: usize| made.pixel(x, 32).iter().zip([200, 40, 40]).map(|(a, b): (&u8, u8)| a.abs_diff(b)).max();
    assert!(distance(60).is_some_and(|most| most < 80), "kept, up to what the VAE changes: {:?}", made.pixel(60, 32));
    let none = server.put(&format!("{path}/init_image"), json!({"init_image": null})).await.expect(200);
    assert_eq!(none["init_image"], Value::Null);
}

#[tokio::test]
async fn attention_is_told_for_rounds_that_measured_it() {
    let server = Server::new();
    let path = server.session(8).await;
    let session = server.round(&path, 2).await;
    let [liked, disliked] = [0, 1].map(|at| images(&session, 0)[at].clone());
    for (image, strength) in [(&disliked, -1), (&liked, 1)] {
        server.post(&format!("{path}/votes"), json!({"image": image, "strength": strength})).await.expect(200);
    }
    let fabric = json!({"start": 0.0, "end": 1.0, "max_weight": 0.8});
    let settings = json!({"measure_attention": true, "fabric": fabric});
    server.patch(&path, json!({"settings": settings})).await.expect(200);
    server.round(&path, 1).await;
    let attention = server.get(&format!("{path}/rounds/1/attention")).await.expect(200);
    let references = attention["references"].as_array().expect("references");
    let images: Vec<&Value> = references.iter().map(|one| &one["image"]).collect();
    assert_eq!(images, [&json!(liked), &json!(disliked)]);
    assert_eq!((&references[0]["side"], &references[1]["side"]), (&json!("liked"), &json!("disliked")));
    assert!(references[0]["mean"].as_f64().is_some_and(|mean| mean > 0.0), "{attention}");
    assert_eq!(references[0]["layers"][0]["steps"].as_array().map(Vec::len), Some(2));
    // One image, with a map of 16 by 16 cells for each reference.
    let sides = |map: &Value| (map.as_array().map(Vec::len), map[15].as_array().map(Vec::len));
    for reference in references {
        assert_eq!(reference["maps"].as_array().map(Vec::len), Some(1));
        assert_eq!(sides(&reference["maps"][0]), (Some(16), Some(16)));
    }
    assert!(references[0]["maps"][0][8][8].as_f64().is_some_and(|share| share > 0.0), "{attention}");
    server.get(&format!("{path}/rounds/0/attention")).await.is_error(404, "unknown_round");
    server.get(&format!("{path}/rounds/2/attention")).await.is_error(404, "unknown_round");
}

#[tokio::test]
async fn the_timeline_has_the_time_of_each_step_and_the_peak_memory() {
    let server = Server::new();
    let path = server.session(11).await;
    let session = server.round(&path, 1).await;
    let timeline = server.get(&format!("{path}/rounds/0/timeline")).await.expect(200);
    let steps = timeline["step_seconds"].as_array().expect("steps");
    assert_eq!(steps.len(), 2);
    let beside = ["text_seconds", "encode_seconds", "decode_seconds"].map(|name| &timeline[name]);
    let sum: f64 = steps.iter().chain(beside).map(|seconds| seconds.as_f64().expect("a number")).sum();
    let whole = session["rounds"][0]["seconds"].as_f64().expect("a number");
    assert!((sum - whole).abs() < 1e-3, "{sum} of {whole} s: {timeline}");
    // Not every system tells the peak.
    let peak = &timeline["peak_memory"];
    assert!(peak.is_null() || peak.as_u64().is_some_and(|bytes| bytes > 1 << 20), "{timeline}");
}

#[tokio::test]
async fn the_gallery_has_all_images_by_rating_or_newest_first() {
    let server = Server::new();
    let (first, second) = (server.session(9).await, server.session(10).await);
    let old = server.round(&first, 2).await;
    let new = server.round(&second, 1).await;
    for (path, image, strength) in [(&first, &images(&old, 0)[1], 0.5), (&second, &images(&new, 0)[0], -1.0)] {
        server.post(&format!("{path}/votes"), json!({"image": image, "strength": strength})).await.expect(200);
    }
    let order = async |sort: &str| -> Vec<String> {
        let gallery = server.get(&format!("/api/gallery{sort}")).await.expect(200);
        let images = gallery["images"].as_array().expect("images").iter().map(|one| text(&one["image"]).to_owned());
        images.collect()
    };
    let (old, new) = (images(&old, 0), images(&new, 0));
    let by_rating = [&old[1], &old[0], &new[0]].map(String::clone);
    let by_time = [&new[0], &old[0], &old[1]].map(String::clone);
    assert_eq!(order("?sort=rating").await, by_rating);
    assert_eq!(order("?sort=new").await, by_time);
    assert_eq!(order("").await, by_time);
    server.get("/api/gallery?sort=size").await.is_error(400, "bad_request");
}

#[tokio::test]
async fn the_gallery_tells_images_without_a_vote_from_those_whose_votes_cancel_out() {
    let server = Server::new();
    let path = server.session(12).await;
    let made = images(&server.round(&path, 4).await, 0);
    let votes = [(0, 1.0, None), (1, -0.5, None), (2, 1.0, Some("style")), (2, -1.0, Some("colour"))];
    for (at, strength, reason) in votes {
        let vote = json!({"image": made[at], "strength": strength, "reason": reason});
        server.post(&format!("{path}/votes"), vote).await.expect(200);
    }
    let gallery = server.get("/api/gallery").await.expect(200);
    let listed = gallery["images"].as_array().expect("images");
    let expected = [(1.0, true, false), (-0.5, false, true), (0.0, true, true), (0.0, false, false)];
    for (hash, expected) in made.iter().zip(expected) {
        let image = listed.iter().find(|one| one["image"] == hash.as_str()).expect("the image");
        assert_eq!(json!([image["rating"], image["liked"], image["disliked"]]), json!(expected));
    }
}

//! Rounds: what they are made with, their images, comparisons and attention.

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

#[tokio::test]
async fn the_same_seed_gives_the_same_images_also_at_the_same_time() {
    let rounds = async |server: &Server, together: bool| {
        let sessions = [server.session(1).await, server.session(2).await];
        let mut all = Vec::new();
        for round in 0..2 {
            let jobs = if together {
                [server.start(&sessions[0], 2).await, server.start(&sessions[1], 2).await]
            } else {
                let first = server.start(&sessions[0], 2).await;
                server.finished(&first).await;
                [first, server.start(&sessions[1], 2).await]
            };
            for (job, session) in jobs.iter().zip(&sessions) {
                assert_eq!(server.finished(job).await["state"], "done");
                let made = images(&server.get(session).await.expect(200), round);
                let vote = json!({"image": made[0], "strength": 1});
                server.post(&format!("{session}/votes"), vote).await.expect(200);
                all.push(made);
            }
        }
        all
    };
    let (together, one_by_one) = (rounds(&Server::new(), true).await, rounds(&Server::new(), false).await);
    assert_eq!(together, one_by_one);
    assert_ne!(together[0], together[1]);
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
    server.get(&format!("{path}/rounds/0/attention")).await.is_error(404, "unknown_round");
    server.get(&format!("{path}/rounds/2/attention")).await.is_error(404, "unknown_round");
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

//! Tests of properties of the whole world.

use std::collections::{HashMap, HashSet};

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::palette::distance;
use super::*;

fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

/// Returns every kind in every size at every position, each with some colour and texture on some background.
fn everywhere() -> impl Iterator<Item = Scene> {
    let mut rng = rng(1);
    let places = Size::ALL.into_iter().flat_map(|size| Position::ALL.map(|position| (size, position)));
    places.flat_map(|(size, position)| Kind::ALL.map(|kind| (kind, size, position))).map(
        move |(kind, size, position)| loop {
            let scene = Scene::random(&mut rng);
            if scene.kind == kind {
                break Scene { size, position, ..scene };
            }
        },
    )
}

/// Returns the corners of the cube of variations, where things extend farthest, and some inner points.
fn variations(rng: &mut ChaCha12Rng) -> Vec<Variation> {
    let extremes = (0..8).map(|bits: u32| {
        let sign = |bit: u32| if bits >> bit & 1 == 1 { 1.0 } else { -1.0 };
        Variation {
            shift: [sign(0) * Variation::SHIFT, sign(1) * Variation::SHIFT],
            turn: sign(2) * Variation::TURN,
            growth: Variation::GROWTH,
            shade: sign(0) * Variation::SHADE,
            background_shade: -sign(0) * Variation::SHADE,
        }
    });
    extremes.chain((0..2).map(|_| Variation::random(rng))).collect()
}

fn pixels(rgb: &[u8]) -> impl Iterator<Item = Rgb> {
    rgb.as_chunks::<3>().0.iter().copied()
}

#[test]
fn every_value_of_every_factor_is_reached_in_both_splits() {
    for split in Split::ALL {
        let mut rng = rng(2);
        let mut seen: HashMap<Attribute, HashSet<usize>> = HashMap::new();
        for _ in 0..5_000 {
            let scene = Scene::random_of(split, &mut rng);
            assert!(scene.is_valid(), "{scene:?}");
            let all = Named::of(&scene);
            for attribute in all.attributes() {
                seen.entry(attribute).or_default().extend(all.index_of(attribute));
            }
        }
        for attribute in Attribute::ALL {
            assert_eq!(seen[&attribute].len(), attribute.values().len(), "{attribute} in {split}");
        }
    }
}

#[test]
fn what_is_held_out_is_never_in_training() {
    let mut shares = [0; 2];
    for index in 0..20_000 {
        for split in Split::ALL {
            let scene = sample(3, index, split).scene;
            assert_eq!(scene.is_held_out(), split == Split::HeldOut);
            let ground = !scene.is_face() && is_held_out_ground(scene.texture, scene.background.colour);
            assert_eq!(split == Split::HeldOut, ground || is_held_out_pair(scene.kind, scene.colour));
        }
        let mut rng = rng(index);
        shares[Scene::random(&mut rng).split().index()] += 1;
    }
    let held_out = shares[1] as f32 / 20_000.0;
    assert!((0.22..0.32).contains(&held_out), "{held_out}");
}

#[test]
fn training_shows_each_value_with_most_values_of_every_other_factor() {
    let mut pairs = HashSet::new();
    let mut rng = rng(4);
    for _ in 0..60_000 {
        let all = Named::of(&Scene::random_of(Split::Train, &mut rng));
        let seen: Vec<_> = all.attributes().map(|attribute| (attribute, all.index_of(attribute))).collect();
        pairs.extend(seen.iter().flat_map(|&a| seen.iter().map(move |&b| (a, b))));
    }
    // Factors of faces are named only for faces, texture only for other things.
    let of_all = [
        Attribute::Kind,
        Attribute::Colour,
        Attribute::Texture,
        Attribute::Size,
        Attribute::Position,
        Attribute::BackgroundColour,
        Attribute::BackgroundPattern,
    ];
    for (a, b) in of_all.into_iter().flat_map(|a| of_all.map(|b| (a, b))).filter(|(a, b)| a != b) {
        for i in 0..a.values().len() {
            let with = (0..b.values().len()).filter(|&j| pairs.contains(&((a, Some(i)), (b, Some(j))))).count();
            let is_face = (a, i) == (Attribute::Kind, Kind::Face.index());
            let exempt = is_face && b == Attribute::Texture;
            assert!(exempt || with + 2 >= b.values().len(), "{} with {with} of {b}", a.values()[i]);
        }
    }
}

#[test]
fn the_same_example_is_the_same_to_the_byte() {
    let draw = |index| {
        let example = sample(5, index, Split::Train);
        (example.scene.render(&example.variation, SIDE).unwrap(), example)
    };
    let forwards: Vec<_> = (0..100).map(draw).collect();
    let mut backwards: Vec<_> = (0..100).rev().map(draw).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    assert_ne!(sample(6, 0, Split::Train), sample(5, 0, Split::Train));
}

#[test]
fn the_series_of_examples_is_frozen() {
    let captions = [0, 1, 2].map(|index| sample(42, index, Split::Train).caption.text);
    assert_eq!(captions, FROZEN);
}

const FROZEN: [&str; 3] = [
    "a square that is large, blue and dotted, on the right, on a yellow background",
    "a fish that is medium, yellow and dotted, on a red background",
    "at the top right, a medium green plain ring on a white dotted background",
];

#[test]
fn things_lie_wholly_inside_the_image() {
    let mut rng = rng(7);
    for scene in everywhere() {
        for variation in variations(&mut rng) {
            let mask = scene.mask(&variation, SIDE).unwrap();
            let with = scene.render(&variation, SIDE).unwrap();
            let without = scene.render_background(&variation, SIDE).unwrap();
            let side = SIDE as usize;
            for (i, (a, b)) in pixels(&with).zip(pixels(&without)).enumerate() {
                let on_border = i % side == 0 || i % side == side - 1 || i / side == 0 || i / side == side - 1;
                if on_border || mask[i] == 0 {
                    assert_eq!(a, b, "{scene:?} {variation:?} at {i}");
                }
            }
        }
    }
}

#[test]
fn things_fill_the_circle_of_their_radius_and_no_more() {
    const ZOOM: u32 = 8;
    for (kind, index) in Kind::ALL.into_iter().flat_map(|kind| [(kind, 0), (kind, 6), (kind, 12)]) {
        let (size, position, identity) = (Size::Large, Position::Center, Identity::from_index(index));
        let scene = Scene { kind, size, position, identity, ..Scene::random(&mut rng(18)) };
        let mask = scene.mask(&Variation::default(), ZOOM * SIDE).unwrap();
        let side = (ZOOM * SIDE) as usize;
        let away = |i: usize| (((i % side) as f32 + 0.5) - 256.0).hypot(((i / side) as f32 + 0.5) - 256.0);
        let reach = (0..mask.len()).filter(|&i| mask[i] > 127).map(away).fold(0.0, f32::max);
        let radius = size.radius() * ZOOM as f32;
        assert!((0.89 * radius..1.005 * radius).contains(&reach), "{kind} {}: {}", identity.hair, reach / radius);
    }
}

#[test]
fn every_thing_lies_nearest_to_its_own_position() {
    let mut rng = rng(8);
    for scene in everywhere() {
        for variation in variations(&mut rng) {
            let mask = scene.mask(&variation, SIDE).unwrap();
            let sum = |of: fn(usize) -> usize| {
                let at = |i: usize| of(i) as f32 + 0.5;
                mask.iter().enumerate().map(|(i, &share)| f32::from(share) * at(i)).sum::<f32>()
            };
            let weight: f32 = mask.iter().map(|&share| f32::from(share)).sum();
            let center = [sum(|i| i % SIDE as usize) / weight, sum(|i| i / SIDE as usize) / weight];
            assert_eq!(Position::nearest(center, scene.size), scene.position, "{scene:?} {variation:?} {center:?}");
        }
    }
}

#[test]
fn sizes_are_told_apart_by_the_extent_of_the_thing() {
    for kind in Kind::ALL {
        let extent = |size, growth| {
            let position = Position::Center;
            let scene = Scene { kind, size, position, ..Scene::random(&mut rng(9)) };
            let mask = scene.mask(&Variation { growth, ..Variation::default() }, SIDE).unwrap();
            mask.iter().map(|&share| f32::from(share) / 255.0).sum::<f32>()
        };
        for sizes in Size::ALL.windows(2) {
            let (small, large) = (extent(sizes[0], Variation::GROWTH), extent(sizes[1], -Variation::GROWTH));
            assert!(large > 1.4 * small, "{kind}: {small} {large}");
        }
    }
}

/// Returns the colour whose shades are nearest to most pixels of the thing.
fn read_colour(scene: &Scene, variation: &Variation) -> Colour {
    let mask = scene.mask(variation, SIDE).unwrap();
    let rgb = scene.render(variation, SIDE).unwrap();
    let side = SIDE as usize;
    // In a face, only the crown is certain to be hair.
    let crown = scene.center()[1] + variation.shift[1] - 0.45 * scene.size.radius();
    let is_read = |i: usize| mask[i] == 255 && (!scene.is_face() || ((i / side) as f32) < crown);
    let mut votes = [0; Colour::ALL.len()];
    for (_, pixel) in pixels(&rgb).enumerate().filter(|&(i, _)| is_read(i)) {
        let away = |colour: &Colour| {
            let Tones { main, second } = colour.tones();
            distance(main, pixel).min(distance(second, pixel))
        };
        let nearest = Colour::ALL.into_iter().min_by(|a, b| away(a).total_cmp(&away(b))).unwrap();
        votes[nearest.index()] += 1;
    }
    Colour::ALL.into_iter().max_by_key(|colour| votes[colour.index()]).unwrap()
}

#[test]
fn colours_are_recovered_from_the_pixels() {
    let mut rng = rng(10);
    for kind in Kind::ALL {
        for colour in Colour::ALL {
            for texture in Texture::ALL {
                for size in Size::ALL {
                    for shade in [-Variation::SHADE, 0.0, Variation::SHADE] {
                        let scene = Scene { kind, colour, texture, size, ..Scene::random(&mut rng) };
                        let variation = Variation { shade, ..Variation::random(&mut rng) };
                        assert_eq!(read_colour(&scene, &variation), colour, "{scene:?} {variation:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn background_colours_are_recovered_from_the_mean_of_the_border() {
    let mut rng = rng(11);
    for _ in 0..2_000 {
        let scene = Scene::random(&mut rng);
        let rgb = scene.render(&Variation::random(&mut rng), SIDE).unwrap();
        let mask = scene.mask(&Variation::default(), SIDE).unwrap();
        let behind: Vec<Rgb> = pixels(&rgb).zip(&mask).filter(|&(_, &share)| share == 0).map(|(rgb, _)| rgb).collect();
        let away = |colour: BackgroundColour| {
            behind.iter().map(|&pixel| distance(colour.tones().main, pixel)).sum::<f32>() / behind.len() as f32
        };
        let nearest = BackgroundColour::ALL.into_iter().min_by(|&a, &b| away(a).total_cmp(&away(b))).unwrap();
        assert_eq!(nearest, scene.background.colour);
    }
}

#[test]
fn no_two_values_of_a_factor_look_alike() {
    let mut rng = rng(12);
    let still = Variation::default();
    for _ in 0..50 {
        let scene = Scene::random(&mut rng);
        let differs = |other: Scene| {
            let (a, b) = (scene.render(&still, SIDE).unwrap(), other.render(&still, SIDE).unwrap());
            pixels(&a).zip(pixels(&b)).filter(|&(a, b)| distance(a, b) > 25.0).count()
        };
        for kind in Kind::ALL.into_iter().filter(|&kind| kind != scene.kind) {
            assert!(differs(Scene { kind, ..scene }) > 20, "{scene:?} {kind}");
        }
        for texture in Texture::ALL.into_iter().filter(|&texture| texture != scene.texture && !scene.is_face()) {
            assert!(differs(Scene { texture, ..scene }) > 20, "{scene:?} {texture}");
        }
        for pattern in BackgroundPattern::ALL.into_iter().filter(|&pattern| pattern != scene.background.pattern) {
            let background = Background { pattern, ..scene.background };
            assert!(differs(Scene { background, ..scene }) > 200, "{scene:?} {pattern}");
        }
    }
}

#[test]
fn all_identities_look_different_in_every_size() {
    for size in Size::ALL {
        let face = |index| Scene {
            kind: Kind::Face,
            colour: Colour::Red,
            texture: Texture::Plain,
            size,
            position: Position::Center,
            background: Background { colour: BackgroundColour::Gray, pattern: BackgroundPattern::Plain },
            identity: Identity::from_index(index),
        };
        let image = |index| face(index).render(&Variation::default(), SIDE).unwrap();
        let images: HashSet<Vec<u8>> = (0..Identity::COUNT).map(image).collect();
        assert_eq!(images.len(), Identity::COUNT);
    }
}

#[test]
fn identity_is_nothing_to_what_is_no_face() {
    let scene = Scene { kind: Kind::House, identity: Identity::default(), ..Scene::random(&mut rng(13)) };
    let other = Scene { identity: Identity::from_index(321), ..scene };
    let draw = |scene: Scene| scene.render(&Variation::default(), SIDE).unwrap();
    assert_eq!(draw(scene), draw(other));
    assert!(!other.is_valid());
    assert_eq!(Named::of(&scene), Named::of(&other));
}

#[test]
fn captions_say_what_they_name_and_nothing_false() {
    let words: HashSet<&str> = words().into_iter().collect();
    let mut used = HashSet::new();
    for index in 0..20_000 {
        let Sample { scene, caption: Caption { text, named }, .. } = sample(14, index, Split::Train);
        assert_eq!(parse_caption(&text), named, "{text}");
        assert!(named.is_true_of(&scene), "{text} {scene:?}");
        for word in text.split(' ').map(|word| word.strip_suffix(',').unwrap_or(word)) {
            used.insert(*words.get(word).unwrap_or_else(|| panic!("`{word}` in `{text}`")));
        }
    }
    // The nouns of single factors are spelled in pieces.
    let is_one_factor = |task: &InstructTask| task.index() > InstructTask::Face.index();
    let instructions = InstructTask::ALL
        .into_iter()
        .filter(|task| !is_one_factor(task))
        .flat_map(|task| Split::ALL.map(|split| task.instructions(split, None)));
    for text in instructions.flatten() {
        for word in text.split(' ') {
            used.insert(*words.get(word).unwrap_or_else(|| panic!("`{word}` in `{text}`")));
        }
    }
    assert_eq!(used, words, "every word is used");
}

#[test]
fn full_captions_name_everything_in_every_wording() {
    let mut rng = rng(15);
    for _ in 0..5_000 {
        let all = Named::of(&Scene::random(&mut rng));
        for wording in Wording::ALL {
            let text = all.caption(wording);
            assert_eq!(parse_caption(&text), all, "{text}");
        }
    }
}

#[test]
fn sides_within_the_limits_are_drawn_alike_and_others_refused() {
    let example = sample(16, 0, Split::Train);
    let mean = |side: u32| {
        let rgb = example.scene.render(&example.variation, side).unwrap();
        assert_eq!(rgb.len(), (side * side * 3) as usize);
        rgb.iter().map(|&value| f64::from(value)).sum::<f64>() / rgb.len() as f64
    };
    for side in [MIN_SIDE, 100, 512, MAX_SIDE] {
        assert!((mean(side) - mean(SIDE)).abs() < 2.0);
    }
    for got in [0, MIN_SIDE - 1, MAX_SIDE + 1, u32::MAX] {
        let error = WorldError::Side { got, min: MIN_SIDE, max: MAX_SIDE };
        assert_eq!(example.scene.render(&example.variation, got), Err(error.clone()));
        assert_eq!(example.scene.mask(&example.variation, got), Err(error));
    }
}

#[test]
fn scenes_are_written_in_snake_case_and_read_back() {
    let example = sample(17, 0, Split::HeldOut);
    let json = serde_json::to_string(&example).unwrap();
    assert_eq!(serde_json::from_str::<Sample>(&json).unwrap(), example);
    assert_eq!(serde_json::to_string(&Position::TopLeft).unwrap(), "\"top_left\"");
}

#[test]
fn unknown_names_are_refused_with_those_that_exist() {
    let error = "mauve".parse::<Size>().unwrap_err();
    assert_eq!(error.to_string(), "`mauve` is no size, expected one of: small, medium, large");
}

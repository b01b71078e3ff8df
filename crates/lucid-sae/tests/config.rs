//! Presets and fields resolve to checked configurations; what does not is refused by name.
#![allow(clippy::unwrap_used)]

use lucid_sae::config::{AlignNormalization, Initialise, TopK};
use lucid_sae::{Config, Preset, SaeError};
use serde_json::{Value, json};

fn resolve(fields: Value) -> Result<Config, SaeError> {
    Config::resolve(Preset::Default, &fields)
}

#[test]
fn every_preset_resolves_and_survives_json() {
    for preset in Preset::ALL {
        assert_eq!(Preset::parse(preset.name()).unwrap(), preset);
        let config = Config::resolve(preset, &json!({})).unwrap();
        assert_eq!(config, preset.config());
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }
}

#[test]
fn presets_are_what_the_method_says() {
    let (default, paper) = (Preset::Default.config(), Preset::Paper.config());
    assert_eq!((default.d_shared, default.d_private, default.k_shared, default.k_private), (1536, 4608, 16, 32));
    assert_eq!((default.alpha, default.beta, default.gamma, default.w_ot), (1.0, 0.5, 0.3, 0.0));
    assert_eq!(default.initialise, Initialise::Paired);
    assert_eq!(default.align_normalization, AlignNormalization::Pooled);
    assert!(default.tied_init && default.unit_norm_decoder && default.center && default.scale);
    assert_eq!(paper.initialise, Initialise::Random);
    assert_eq!(paper.align_normalization, AlignNormalization::Tokens);
    assert!(!(paper.tied_init || paper.unit_norm_decoder || paper.center || paper.scale || paper.bias_from_mean));
    assert_eq!((paper.aux_coefficient, paper.grad_clip), (0.0, 0.0));
    // The ladder runs from a random start (spec 5.2), and OT weighs 0.1.
    let ladder = [Preset::OtOnly, Preset::ShareK, Preset::ShareKGsl, Preset::ShareKGslGcmt].map(Preset::config);
    assert!(ladder.iter().all(|config| config.initialise == Initialise::Random));
    assert_eq!(ladder.each_ref().map(|config| config.w_ot), [0.1, 0.1, 0.0, 0.0]);
    assert_eq!(ladder.each_ref().map(|config| config.beta), [0.0, 0.0, 0.5, 0.5]);
    assert_eq!(ladder.each_ref().map(|config| config.topk == TopK::Global), [true, false, false, false]);
    assert_eq!(ladder.each_ref().map(|config| config.mass_reweighting), [false, false, false, true]);
}

#[test]
fn fields_override_the_preset() {
    let config = resolve(json!({ "dShared": 64, "lr": 1e-3, "maskPenalty": "inf", "topk": "global" })).unwrap();
    assert_eq!((config.d_shared, config.lr, config.topk), (64, 1e-3, TopK::Global));
    assert!(config.mask_penalty.is_infinite());
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    for (field, nearest) in
        [("dshared", "dShared"), ("kShare", "kShared"), ("learningRate", ""), ("weight_decay", "weightDecay")]
    {
        let error = resolve(json!({ field: 1 })).unwrap_err();
        assert_eq!(error.code(), "E_UNKNOWN_OPTION");
        assert!(error.to_string().contains(field), "{error}");
        if !nearest.is_empty() {
            assert!(error.to_string().contains(&format!("'{nearest}'")), "{error}");
        }
    }
    let error = Preset::parse("papper").unwrap_err();
    assert!(error.to_string().contains("'paper'"), "{error}");
}

#[test]
fn values_out_of_range_or_of_the_wrong_type_are_named() {
    let refused = [
        ("kShared", json!({ "dShared": 8, "kShared": 9 })),
        ("kPrivate", json!({ "dPrivate": 8, "kPrivate": 9 })),
        ("batchPairs", json!({ "batchPairs": 0 })),
        ("epsilon", json!({ "epsilon": 0 })),
        ("sinkMass", json!({ "sinkMass": 1 })),
        ("sinkMass", json!({ "sinkMass": -0.1 })),
        ("epsilon", json!({ "epsilon": 0.001 })),
        ("lr", json!({ "lr": -1 })),
        ("lr", json!({ "lr": "fast" })),
        ("dShared", json!({ "dShared": -1 })),
        ("dShared", json!({ "dShared": 1.5 })),
        ("topk", json!({ "topk": "both" })),
        ("beta1", json!({ "beta1": 1.0 })),
        ("steps", json!({ "steps": 0, "epochs": 0 })),
        ("kShared", json!({ "kShared": 0, "kPrivate": 0 })),
        ("iterations", json!({ "iterations": 0 })),
    ];
    for (option, fields) in refused {
        let error = resolve(fields.clone()).unwrap_err();
        assert_eq!(error.code(), "E_OPTION", "{fields}");
        assert_eq!(error.details()["option"], option, "{fields}: {error}");
        assert!(error.hint().is_some());
    }
    assert_eq!(resolve(json!([])).unwrap_err().code(), "E_OPTION");
}

/// 0 pairs a micro-batch are as many as suit the device; any other number is taken as it is.
#[test]
fn micro_batches_suit_the_device() {
    let cpu = lucid_kernels::cpu::Cpu::new(Some(1)).unwrap();
    let of = |micro_pairs| Config { micro_pairs, ..Config::default() }.micro_pairs_on(&cpu);
    assert_eq!((Config::default().micro_pairs, of(0), of(7), of(300)), (0, 32, 7, 300));
    assert!(Config { micro_pairs: 0, ..Config::default() }.validate().is_ok());
}

//! Writes a sheet of generated scenes as a binary PPM picture: `contact_sheet OUT.ppm [columns rows seed single|family|easy]`.
#![allow(missing_docs)]

use lucid_data::scenes::{Canvas, Level, SceneOptions, scene_with};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, or: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(or);
    let (columns, rows, seed) = (number(1, 8), number(2, 5), number(3, 4) as u64);
    let mut options = SceneOptions::default();
    for word in args.iter().skip(4) {
        match word.as_str() {
            "single" => options.canvas = Canvas::Single,
            "family" => options.family = 8,
            "easy" => options.level = Level::Easy,
            _ => {}
        }
    }
    let side = options.canvas.side();
    let pitch = side + 4;
    let (width, height) = (columns * pitch, rows * pitch);
    let mut sheet = vec![255_u8; width * height * 3];
    for i in 0..columns * rows {
        let s = scene_with(seed, i as u64, &options);
        for y in 0..side {
            let to = (((i / columns) * pitch + y) * width + (i % columns) * pitch) * 3;
            sheet[to..to + side * 3].copy_from_slice(&s.rgb[y * side * 3..(y + 1) * side * 3]);
        }
        println!("{i}: {}", s.caption);
    }
    let start = std::time::Instant::now();
    let bytes: usize = (0..1000).map(|i| scene_with(1, i, &options).rgb.len()).sum();
    println!("{:.0} scenes/s ({bytes} bytes)", 1000.0 / start.elapsed().as_secs_f64());
    let mut file = format!("P6\n{width} {height}\n255\n").into_bytes();
    file.extend(sheet);
    std::fs::write(args.first().map_or("sheet.ppm", String::as_str), file)
}

//! Decoder: launches of decode.cu.

use std::ops::Range;

use super::csc::{self, Gathered};
use super::driver::Driver;
use super::gather::{self, stride};
use super::launcher::{Context, State, blocks, launch, narrow, slots};
use super::{Buffer, Cuda};
use crate::backend::Decode;
use crate::codes::{Block, CodeShape, Codes, Dictionary, Selection};
use crate::error::KernelError;

/// Latents of a block. Every latent of `Joint` is below the number of latents, which an unused slot's index is not.
fn range(shape: CodeShape, block: Block) -> Range<usize> {
    match block {
        Block::Joint => 0..shape.latents(),
        Block::Shared => 0..shape.d_shared,
        Block::Private => shape.d_shared..shape.latents(),
    }
}

/// The slots of a token that hold latents of a block, others among them where a code is not divided.
pub(super) fn slots_of<D: Driver>(codes: &Codes<Cuda<D>>, block: Block) -> Result<(u32, u32), KernelError> {
    let CodeShape { k_shared, selection, .. } = codes.shape;
    let divided = selection == Selection::Split && codes.k == codes.shape.k();
    let range = match block {
        Block::Shared if divided => 0..k_shared,
        Block::Private if divided => k_shared..codes.k,
        _ => 0..codes.k,
    };
    Ok((narrow("k", range.start)?, narrow("k", range.end)?))
}

/// Threads of a block that works on rows of `d` values, eight columns a thread where that is enough.
pub(super) fn threads(d: usize) -> u32 {
    u32::try_from(d.div_ceil(8).next_multiple_of(32).clamp(32, 128)).unwrap_or(128)
}

/// Address of W_dec rounded to bf16, made where it has changed, and values from one of its rows to the next.
fn rounded_decoder<D: Driver>(
    context: &Context<D>,
    state: &mut State<D>,
    dictionary: &Dictionary<Cuda<D>>,
) -> Result<(u64, u32), KernelError> {
    let (d, latents) = (dictionary.d, dictionary.latents);
    let key = (dictionary.w_dec.stamp(), latents as u64);
    let rows = state.rounded.get_or_make(
        |&known| known == key,
        || key,
        |old| {
            let mut rows = old.map_or_else(|| context.buffer(0), Ok)?;
            gather::rounded(context, (dictionary.w_dec.read_at(latents * d), 0), (latents, d), &mut rows)?;
            Ok::<_, KernelError>(rows)
        },
    )?;
    Ok((rows.read_at(latents * stride(d)), narrow("d", stride(d))?))
}

impl<D: Driver> Decode for Cuda<D> {
    fn decode(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let (n, d) = (codes.n, dictionary.d);
        if n == 0 {
            return Ok(());
        }
        let (indices, values) = slots(codes);
        let range = range(codes.shape, block);
        let bias = if bias { dictionary.b_dec.read_at(d) } else { 0 };
        let (grid, k, (from, to)) = ([blocks(n, 1), 1, 1], narrow("k", codes.k)?, slots_of(codes, block)?);
        let (first, end, width) = (narrow("latents", range.start)?, narrow("latents", range.end)?, narrow("d", d)?);
        if context.rounds() {
            let state = &mut *context.state();
            let (rows, stride) = rounded_decoder(context, state, dictionary)?;
            return launch!(context, "decode_rows_bf16", grid, threads(d), 0;
                indices, values, n as u64, k, first, end, rows, stride, bias, width, out.write_at(n * d), from, to);
        }
        let rows = dictionary.w_dec.read_at(dictionary.latents * d);
        launch!(context, "decode_rows", grid, threads(d), 0;
            indices, values, n as u64, k, first, end, rows, bias, width, out.write_at(n * d), from, to)
    }

    fn decode_backward(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        grad: &Buffer<f32, D>,
        d_values: &mut Buffer<f32, D>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let (n, d, latents) = (codes.n, dictionary.d, dictionary.latents);
        if n == 0 {
            return Ok(());
        }
        let range = range(codes.shape, block);
        let (indices, values) = slots(codes);
        let grad = grad.read_at(n * d);
        let (grid, k, width) = ([blocks(n, 1), 1, 1], narrow("k", codes.k)?, narrow("d", d)?);
        let (first, end) = (narrow("latents", range.start)?, narrow("latents", range.end)?);
        let (from, to) = slots_of(codes, block)?;
        if context.rounds() {
            let (rows, stride) = rounded_decoder(context, &mut context.state(), dictionary)?;
            launch!(context, "decode_values_backward_bf16", grid, 128, 0;
                indices, n as u64, k, first, end, rows, stride, grad, width, d_values.write_at(n * codes.k), from, to)?;
        } else {
            launch!(context, "decode_values_backward", grid, 128, 0;
                indices, n as u64, k, first, end, dictionary.w_dec.read_at(latents * d), grad, width,
                d_values.write_at(n * codes.k), from, to)?;
        }
        let out = gradients.w_dec.write_at(latents * d);
        csc::gather(
            context,
            codes,
            latents,
            d,
            &range,
            &Gathered { weights: values, rows: grad, subtract: 0, out, bias: 0 },
        )?;
        if bias {
            csc::column_sums(context, (grad, 0), n, d, 1.0, gradients.b_dec.write_at(d))?;
        }
        Ok(())
    }
}

//! Group and layer normalisation, and their gradients.

use rayon::prelude::*;

use super::activation::{silu, silu_slope};
use super::lanes::{GRAIN, add_up, sum, sum_two, total, vectorised};

/// Group normalisation over `[rows, channels, area]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupNorm {
    pub(crate) channels: usize,
    pub(crate) area: usize,
    pub(crate) groups: usize,
    pub(crate) epsilon: f32,
    /// Whether SiLU follows.
    pub(crate) silu: bool,
}

/// Returns the mean and the reciprocal of the standard deviation.
#[inline(always)]
fn statistics(x: &[f32], epsilon: f32) -> (f32, f32) {
    let scale = 1.0 / x.len() as f32;
    let mean = scale * total(x);
    let variance = scale
        * sum(
            x,
            #[inline(always)]
            |x| (x - mean) * (x - mean),
        );
    (mean, 1.0 / (variance + epsilon).sqrt())
}

impl GroupNorm {
    /// Computes `out = (x - mean) / deviation · weight + bias`, followed by SiLU if `silu`.
    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let (members, length) = self.group();
        out.par_chunks_exact_mut(length).zip(x.par_chunks_exact(length)).enumerate().for_each(|(at, (out, x))| {
            let first = at % self.groups * members;
            vectorised(
                #[inline(always)]
                || {
                    let (mean, scale) = statistics(x, self.epsilon);
                    let planes = out.chunks_exact_mut(self.area).zip(x.chunks_exact(self.area));
                    for (channel, (out, x)) in (first..).zip(planes) {
                        let factor = scale * weight[channel];
                        let shift = (-mean).mul_add(factor, bias[channel]);
                        if self.silu {
                            for (out, x) in out.iter_mut().zip(x) {
                                *out = silu(x.mul_add(factor, shift));
                            }
                        } else {
                            for (out, x) in out.iter_mut().zip(x) {
                                *out = x.mul_add(factor, shift);
                            }
                        }
                    }
                },
            );
        });
    }

    /// Writes the gradient of `x` to `out` and returns those of weight and bias.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        gradient: &[f32],
        out: &mut [f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let (members, length) = self.group();
        let rows = x.len() / (self.channels * self.area);
        // Gradients of weight and bias for each row of the batch.
        let mut sums = vec![(0.0_f32, 0.0_f32); rows * self.channels];
        let tasks = out.par_chunks_exact_mut(length).zip(x.par_chunks_exact(length));
        let tasks = tasks.zip(gradient.par_chunks_exact(length)).zip(sums.par_chunks_exact_mut(members));
        tasks.enumerate().for_each(|(at, (((out, x), gradient), sums))| {
            let first = at % self.groups * members;
            vectorised(
                #[inline(always)]
                || {
                    let (mean, scale) = statistics(x, self.epsilon);
                    let (mut through_mean, mut through_scale) = (0.0, 0.0);
                    let planes = out.chunks_exact_mut(self.area).zip(x.chunks_exact(self.area));
                    let planes = planes.zip(gradient.chunks_exact(self.area)).zip(sums.iter_mut());
                    for (channel, (((out, x), gradient), sums)) in (first..).zip(planes) {
                        let factor = scale * weight[channel];
                        let shift = (-mean).mul_add(factor, bias[channel]);
                        if self.silu {
                            for ((out, x), gradient) in out.iter_mut().zip(x).zip(gradient) {
                                *out = gradient * silu_slope(x.mul_add(factor, shift));
                            }
                        } else {
                            out.copy_from_slice(gradient);
                        }
                        let (of_weight, of_bias) = sum_two(
                            out,
                            x,
                            #[inline(always)]
                            |g, x| (g * ((x - mean) * scale), g),
                        );
                        *sums = (of_weight, of_bias);
                        through_scale += weight[channel] * of_weight;
                        through_mean += weight[channel] * of_bias;
                    }
                    let share = 1.0 / length as f32;
                    // dx = scale (weight g - mean(weight g) - normalised · mean(weight g · normalised))
                    let slope = -scale * scale * through_scale * share;
                    let constant = (-scale * through_mean).mul_add(share, -mean * slope);
                    let planes = out.chunks_exact_mut(self.area).zip(x.chunks_exact(self.area));
                    for (channel, (out, x)) in (first..).zip(planes) {
                        let factor = scale * weight[channel];
                        for (out, x) in out.iter_mut().zip(x) {
                            *out = out.mul_add(factor, x.mul_add(slope, constant));
                        }
                    }
                },
            );
        });
        let (mut of_weight, mut of_bias) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        for row in sums.chunks_exact(self.channels) {
            for (channel, (weight, bias)) in row.iter().enumerate() {
                of_weight[channel] += weight;
                of_bias[channel] += bias;
            }
        }
        (of_weight, of_bias)
    }

    /// Returns the number of channels of a group, and of its elements.
    fn group(&self) -> (usize, usize) {
        let members = self.channels / self.groups;
        (members, members * self.area)
    }
}

/// Layer normalisation of rows as long as `weight`: `out = (x - mean) / deviation · weight + bias`.
pub(crate) fn layer(epsilon: f32, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let channels = weight.len();
    let task = (GRAIN / channels).max(1) * channels;
    out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                    let (mean, scale) = statistics(x, epsilon);
                    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                        *out = ((x - mean) * scale).mul_add(*weight, *bias);
                    }
                }
            },
        );
    });
}

/// Writes the gradient of the `x` of [`layer`] to `out` and returns those of weight and bias.
pub(crate) fn layer_backward(
    epsilon: f32,
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    out: &mut [f32],
) -> (Vec<f32>, Vec<f32>) {
    let channels = weight.len();
    let share = 1.0 / channels as f32;
    let task = (GRAIN / channels).max(1) * channels;
    let tasks = out.par_chunks_mut(task).zip(x.par_chunks(task)).zip(gradient.par_chunks(task));
    let sums: Vec<_> = tasks
        .map(|((out, x), gradient)| {
            let (mut of_weight, mut of_bias) = (vec![0.0_f32; channels], vec![0.0_f32; channels]);
            vectorised(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(channels).zip(gradient.chunks_exact(channels));
                    for (out, (x, gradient)) in out.chunks_exact_mut(channels).zip(rows) {
                        let (mean, scale) = statistics(x, epsilon);
                        for at in 0..channels {
                            of_weight[at] = gradient[at].mul_add((x[at] - mean) * scale, of_weight[at]);
                            of_bias[at] += gradient[at];
                            out[at] = gradient[at] * weight[at];
                        }
                        let (through_scale, through_mean) = sum_two(
                            out,
                            x,
                            #[inline(always)]
                            |g, x| (g * ((x - mean) * scale), g),
                        );
                        let slope = -scale * scale * through_scale * share;
                        let constant = (-scale * through_mean).mul_add(share, -mean * slope);
                        for (out, x) in out.iter_mut().zip(x) {
                            *out = out.mul_add(scale, x.mul_add(slope, constant));
                        }
                    }
                },
            );
            (of_weight, of_bias)
        })
        .collect();
    let (of_weight, of_bias): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
    (add_up(&of_weight, channels), add_up(&of_bias, channels))
}

"use strict";
// The formulas of circlet.losses for one positive and one negative, by the names of its classes.

// How a similarity becomes a logit: [value, slope] for either side.
const boundaries = {
  Linear: ({margin, scale}) => ({
    positive: (s) => [-scale * s, -scale],
    negative: (s) => [scale * (s + margin), scale],
  }),

  Circle({margin, scale, ratio = 1, optimum_p, optimum_n, delta_p, delta_n, detach_weights = true}) {
    optimum_p ??= 1 + margin;
    optimum_n ??= -margin;
    delta_p ??= 1 - margin;
    delta_n ??= margin;
    return {
      positive(s) {
        const alpha = Math.max(0, optimum_p - s);
        const throughWeight = detach_weights || alpha === 0 ? 0 : s - delta_p;
        return [-scale * ratio * alpha * (s - delta_p), -scale * ratio * (alpha - throughWeight)];
      },
      negative(s) {
        const alpha = Math.max(0, s - optimum_n);
        const throughWeight = detach_weights || alpha === 0 ? 0 : s - delta_n;
        return [scale * alpha * (s - delta_n), scale * (alpha + throughWeight)];
      },
    };
  },

  SuperEllipse({margin, scale, power, optimum_p, optimum_n, delta_p, delta_n, detach_weights = true}) {
    optimum_p ??= 1 + margin;
    optimum_n ??= -margin;
    delta_p ??= 1 - margin;
    delta_n ??= margin;
    const throughWeight = (alpha, distance) =>
      detach_weights || alpha === 0 || power === 0 ? 0 : power * alpha ** (power - 1) * distance;
    return {
      positive(s) {
        const alpha = Math.max(0, optimum_p - s), weight = alpha ** power;
        return [-scale * weight * (s - delta_p), -scale * (weight - throughWeight(alpha, s - delta_p))];
      },
      negative(s) {
        const alpha = Math.max(0, s - optimum_n), weight = alpha ** power;
        return [scale * weight * (s - delta_n), scale * (weight + throughWeight(alpha, s - delta_n))];
      },
    };
  },

  Angular({margin, scale}) {
    const cosine = Math.cos(margin), sine = Math.sin(margin);
    return {
      positive(s) {
        if (s <= -cosine) return [-scale * (s - margin * sine), -scale];
        const height = Math.sqrt(Math.max(0, (1 - s) * (1 + s)));
        const slope = height > 0 ? (s / height) * sine : 0;
        return [-scale * (s * cosine - height * sine), -scale * (cosine + slope)];
      },
      negative: (s) => [scale * s, scale],
    };
  },

  Thresholds: ({threshold_p, threshold_n, scale_p = 1, scale_n = 1}) => ({
    positive: (s) => [-scale_p * (s - threshold_p), -scale_p],
    negative: (s) => [scale_n * (s - threshold_n), scale_n],
  }),

  LearnedLine: ({scale, bias}) => ({
    positive: (s) => [-(scale * s + bias), -scale],
    negative: (s) => [scale * s + bias, scale],
  }),
};

const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
const sigmoid = (z) => (z < 0 ? Math.exp(z) / (1 + Math.exp(z)) : 1 / (1 + Math.exp(-z)));
const step = (z) => (z > 0 ? 1 : 0);

// The loss of the two logits, and its slope in each: [value, in the positive's, in the negative's].
function ofSum(value, slope, divisor = 1) {
  return (p, n) => [value(p + n) / divisor, slope(p + n) / divisor, slope(p + n) / divisor];
}
function ofEach(value, slope, divisor_p = 1, divisor_n = 1) {
  const objective = (p, n) => [
    value(p) / divisor_p + value(n) / divisor_n, slope(p) / divisor_p, slope(n) / divisor_n,
  ];
  // Each logit is held against 0, and not the two against each other: the boundary is a corner.
  return Object.assign(objective, {sidesApart: true});
}
const relu = (z) => Math.max(z, 0);
const unified = ofSum(softplus, sigmoid);

// Each loss from the arguments of its class.
const losses = {
  CircleLoss: (given) => [boundaries.Circle(given), unified],
  EllipseLoss: (given) => [boundaries.Circle(given), unified],
  SuperEllipseLoss: (given) => [boundaries.SuperEllipse(given), unified],
  UnifiedLoss: (given) => [boundaries.Linear(given), unified],
  CosFaceLoss: (given) => [boundaries.Linear(given), unified],
  NormFaceLoss: ({scale}) => [boundaries.Linear({margin: 0, scale}), unified],
  SoftmaxLoss: () => [boundaries.Linear({margin: 0, scale: 1}), unified],
  InfoNCELoss: ({temperature}) => [boundaries.Linear({margin: 0, scale: 1 / temperature}), unified],
  'TripletLoss(mining="hard")': ({margin}) => [boundaries.Linear({margin, scale: 1}), ofSum(relu, step)],
  'TripletLoss(mining="soft")': (given) => [boundaries.Linear(given), ofSum(softplus, sigmoid, given.scale)],
  LiftedStructureLoss: (given) => [boundaries.Linear(given), ofSum(relu, step)],
  ProxyNCALoss: ({scale}) => [boundaries.Linear({margin: 0, scale: 2 * scale}), ofSum((z) => z, () => 1)],
  ArcFaceLoss: (given) => [boundaries.Angular(given), unified],
  ContrastiveLoss: (given) => [boundaries.Thresholds(given), ofEach(relu, step)],
  MultiSimilarityLoss: ({alpha, beta, threshold}) => [
    boundaries.Thresholds({threshold_p: threshold, threshold_n: threshold, scale_p: alpha, scale_n: beta}),
    ofEach(softplus, sigmoid, alpha, beta),
  ],
  ProxyAnchorLoss: ({margin, scale}) => [
    boundaries.Thresholds({threshold_p: margin, threshold_n: -margin, scale_p: scale, scale_n: scale}),
    ofEach(softplus, sigmoid),
  ],
  SigmoidLoss: (given) => [boundaries.LearnedLine(given), ofEach(softplus, sigmoid)],
};

// The loss as a function of (s_n, s_p): {loss, negative: dL/ds_n, positive: dL/ds_p}, with its two parts.
function makeLoss(name, values) {
  const [boundary, objective] = losses[name](values);
  const evaluate = (s_n, s_p) => {
    const [logit_p, slope_p] = boundary.positive(s_p);
    const [logit_n, slope_n] = boundary.negative(s_n);
    const [loss, in_p, in_n] = objective(logit_p, logit_n);
    return {loss, negative: in_n * slope_n, positive: in_p * slope_p};
  };
  return {boundary, objective, evaluate};
}

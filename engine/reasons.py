"""Every coded yes and no. A refusal carries one of these and the numbers behind it."""

ALLOW_NEW_ENTRY = "ALLOW_NEW_ENTRY"
ALLOW_SCALE_IN = "ALLOW_SCALE_IN"
BLOCK_LOW_CONFIDENCE = "BLOCK_LOW_CONFIDENCE"
BLOCK_COOLDOWN = "BLOCK_COOLDOWN"
BLOCK_MAX_POSITIONS = "BLOCK_MAX_POSITIONS"
BLOCK_MAX_EXPOSURE = "BLOCK_MAX_EXPOSURE"
BLOCK_EXISTING_POSITION = "BLOCK_EXISTING_POSITION"
BLOCK_SCALE_IN_RULE = "BLOCK_SCALE_IN_RULE"
BLOCK_REGIME_RULE = "BLOCK_REGIME_RULE"
BLOCK_INSUFFICIENT_CAPITAL = "BLOCK_INSUFFICIENT_CAPITAL"

ALLOWED = (ALLOW_NEW_ENTRY, ALLOW_SCALE_IN)
BLOCKS = (BLOCK_LOW_CONFIDENCE, BLOCK_COOLDOWN, BLOCK_MAX_POSITIONS, BLOCK_MAX_EXPOSURE, BLOCK_EXISTING_POSITION,
          BLOCK_SCALE_IN_RULE, BLOCK_REGIME_RULE, BLOCK_INSUFFICIENT_CAPITAL)
DECISIONS = ALLOWED + BLOCKS

HALTED = "halted"                          # a kill is in force
STALE_SIGNAL = "stale_signal"              # the score came too late
NO_MARKET = "no_market"                    # no touch known for the symbol
BELOW_TAU = "below_tau_entry"              # the model's own threshold
SCHEMA_MISMATCH = "schema_mismatch"        # scored on other features than the model knows
DUPLICATE = "duplicate"                    # this id has been decided
QTY_ZERO = "qty_zero"                      # rounds down to no lot
BELOW_MINIMUM = "below_exchange_minimum"   # dropped, never lifted
INVALID_INPUT = "invalid_input"            # non-finite numbers
PORTFOLIO_UNREADABLE = "portfolio_unreadable"

DROPS = (*BLOCKS, HALTED, STALE_SIGNAL, NO_MARKET, BELOW_TAU, SCHEMA_MISMATCH, DUPLICATE, QTY_ZERO, BELOW_MINIMUM,
                  INVALID_INPUT, PORTFOLIO_UNREADABLE)

# why the venue or the executor refused
POST_ONLY_WOULD_CROSS = "post_only_would_cross"
REDUCE_ONLY_WOULD_OPEN = "reduce_only_would_open"
DUPLICATE_ORDER = "duplicate_order_id"
BAD_TICK_OR_LOT = "bad_tick_or_lot"
BELOW_MIN_NOTIONAL = "below_min_notional"
NO_BOOK = "no_book"
NOT_FOUND = "order_not_found"
IOC_UNFILLED = "ioc_unfilled"
REQUESTED = "requested"
STALE_EPOCH = "stale_epoch"
VENUE_UNREACHABLE = "venue_unreachable"
NOT_ARRIVED = "not_arrived"                # the venue never had it, and it is too late to send it now
OTHER_VENUE = "other_venue"                # decided against a venue whose memory is gone: not handed to the one that is there now

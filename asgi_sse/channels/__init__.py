"""
One source of events for many clients, with what they missed.
"""

from ._backend import BrokerError
from ._broadcast import broadcast
from ._broker import Broker
from ._channel import Channel
from ._subscription import Gap, Statistics, Subscription

__all__ = ["Broker", "BrokerError", "Channel", "Gap", "Statistics", "Subscription", "broadcast"]

"""The console: one page an operator's question. `streamlit run dashboard/app.py`, from the project's folder."""
import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:   # streamlit puts the script's own folder first, not the project
    sys.path.insert(0, str(ROOT))

from dashboard import data, ui  # noqa: E402

PAGES = [st.Page("questions/desk.py", title="Where do we stand?", icon=":material/monitoring:", default=True),
         st.Page("questions/positions.py", title="What do we hold?", icon=":material/stacked_line_chart:", url_path="positions"),
         st.Page("questions/sizing.py", title="What bounded the size?", icon=":material/straighten:", url_path="sizing"),
         st.Page("questions/decisions.py", title="Why was it blocked?", icon=":material/block:", url_path="decisions"),
         st.Page("questions/order.py", title="Why this order?", icon=":material/account_tree:", url_path="order"),
         st.Page("questions/models.py", title="Which model trades?", icon=":material/model_training:", url_path="models"),
         st.Page("questions/fillprob.py", title="May the gate act?", icon=":material/filter_alt:", url_path="fillprob"),
         st.Page("questions/control.py", title="Does it trade?", icon=":material/power_settings_new:", url_path="control")]

st.set_page_config(page_title="Sluice", page_icon=str(ROOT / "dashboard" / "mark.svg"), layout="wide", initial_sidebar_state="collapsed")
st.logo(ROOT / "dashboard" / "logo.svg", size="medium")
ui.dress()
page = st.navigation(PAGES, position="top")
try:
    page.run()
except data.Missing as missing:
    ui.empty(missing.what, missing.todo)
